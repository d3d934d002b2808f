//! What many services cost: the look-up of a new connection's service, and a snapshot after one change
//! (`cargo bench -p xvs-engine --bench services`).
//!
//! `hot` asks for one service among so many; `random` for all of them in a random order, which no cache of the first level
//! holds when there are thousands; `none` for an address that is no service's.
#![allow(missing_docs)] // criterion's macros make items of their own

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use xvs_engine::flow::{Address, Endpoint, Flow, Protocol};
use xvs_engine::route::Routes;
use xvs_engine::sched::Builtin;
use xvs_engine::service::{Policy, Service, ServiceKey};
use xvs_engine::snapshot::{Services, Snapshot};

fn vip(number: u32) -> Endpoint {
    Endpoint::new(Address::v4((0xcb00_0000 + number / 4).to_be_bytes()), 80 + (number % 4) as u16)
}

fn services(count: u32) -> Services {
    let service = |number| {
        let key = ServiceKey::Address(Protocol::TCP, vip(number));
        let scheduler = Builtin::from_name("wlc").unwrap_or_else(|| unreachable!("it is one of ours"));
        Arc::new(Service::new(number, key, scheduler, Policy::default()))
    };
    (0..count).map(service).collect()
}

fn flow(number: u32) -> Flow {
    let src = Endpoint::new(Address::v4([198, 51, 100, 7]), 40000);
    Flow { protocol: Protocol::TCP, src, dst: vip(number) }
}

fn lookup(criterion: &mut Criterion) {
    for count in [1u32, 100, 10_000] {
        let mut group = criterion.benchmark_group(format!("services/{count}"));
        let snapshot = Snapshot::of(1, services(count), Arc::default(), Arc::new(Routes::default()));
        let number = |flow: &Flow| snapshot.service(black_box(flow)).map(|service| service.number);
        for asked in 0..count {
            assert_eq!(number(&flow(asked)), Some(asked));
        }
        let (hot, none) = (flow(count / 2), flow(1 << 20));
        group.bench_function("hot", |bencher| bencher.iter(|| number(&hot)));
        let mut random = 1u32;
        group.bench_function("random", |bencher| {
            bencher.iter(|| {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                number(&flow(((u64::from(random) * u64::from(count)) >> 32) as u32))
            })
        });
        group.bench_function("none", |bencher| bencher.iter(|| number(&none)));
    }
}

/// One service goes and comes back, with a snapshot of each state that is let go after the next one.
fn publish(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("publish");
    for count in [100u32, 10_000] {
        let mut services = services(count);
        let mut kept = None;
        let mut snapshot = |services: &Services| {
            kept = Some(Arc::new(Snapshot::of(1, services.clone(), Arc::default(), Arc::default())));
        };
        let key = ServiceKey::Address(Protocol::TCP, vip(count / 2));
        group.bench_function(count.to_string(), |bencher| {
            bencher.iter(|| {
                let service = services.remove(key);
                snapshot(&services);
                service.into_iter().for_each(|service| services.insert(service));
                snapshot(&services);
            })
        });
    }
}

fn config() -> Criterion {
    let second = Duration::from_secs(1);
    Criterion::default().sample_size(20).warm_up_time(second / 2).measurement_time(second).without_plots()
}

criterion_group! { name = benches; config = config(); targets = lookup, publish }
criterion_main!(benches);
