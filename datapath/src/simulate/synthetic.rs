//! Connections by formula: `rate=2000,seconds=60,clients=5000,zipf=1.1,duration=exp:8s`.
//!
//! Arrivals are a Poisson process whose rate may burst and swing; which client comes is Zipf's or even; times, clients
//! and durations come from streams of their own, so a change of one leaves the others as they were.
//! Invariant: the same words and seed give the same connections, in every version.

use xvs_engine::flow::{Address, Endpoint, Family, Protocol};

use crate::config::problem::{did_you_mean, quote};

use super::quantity::{Distribution, Unit, number};
use super::random::Random;
use super::workload::{Arrival, End, MOST, Workload};

/// Most clients: the addresses of 100.64.0.0/10.
const CLIENTS_MAX: u32 = 1 << 22;
const KEYS: [&str; 9] = ["rate", "seconds", "clients", "zipf", "duration", "bytes", "burst", "swing", "unanswered"];

/// A time in which more connections come.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Burst {
    from_s: f64,
    to_s: f64,
    factor: f64,
}

/// What the words say.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Formula {
    rate: f64,
    seconds: f64,
    clients: u32,
    zipf: f64,
    duration: Distribution,
    bytes: Distribution,
    bursts: Vec<Burst>,
    swing: Option<(f64, f64)>,
    unanswered: f64,
}

impl Formula {
    /// Reads the words; what is not said is rate=1000, seconds=60, clients=10000, zipf=0, duration=exp:5s, bytes=0.
    ///
    /// # Errors
    /// They are wrong: a sentence.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let mut formula = Formula {
            rate: 1000.0,
            seconds: 60.0,
            clients: 10_000,
            zipf: 0.0,
            duration: Distribution::Exponential(5.0),
            bytes: Distribution::Fixed(0.0),
            bursts: Vec::new(),
            swing: None,
            unanswered: 0.0,
        };
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            let Some((key, value)) = word.split_once('=') else {
                return Err(format!("--synthetic: {} must be NAME=VALUE, as in rate=2000", quote(word)));
            };
            formula.set(key.trim(), value.trim()).map_err(|what| format!("--synthetic: {what}"))?;
        }
        let most = formula.rate * formula.peak() * formula.seconds;
        if most > MOST as f64 {
            return Err(format!("--synthetic: that may be {most:.0} connections; at most {MOST} are simulated"));
        }
        Ok(formula)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let within = |low: f64, high: f64| {
            let found = number(value).filter(|value| (low..=high).contains(value));
            found.ok_or_else(|| format!("{key}={value} must be a number from {low} to {high}"))
        };
        match key {
            "rate" => self.rate = within(0.001, 1e7)?,
            "seconds" => {
                self.seconds = Unit::Time.read(value)?;
                if self.seconds < 0.1 {
                    return Err(format!("seconds={value} is too short: at least 0.1"));
                }
            }
            "clients" => self.clients = within(1.0, f64::from(CLIENTS_MAX))? as u32,
            "zipf" => self.zipf = within(0.0, 10.0)?,
            "unanswered" => self.unanswered = within(0.0, 1.0)?,
            "duration" => self.duration = Distribution::read(value, Unit::Time)?,
            "bytes" => self.bytes = Distribution::read(value, Unit::Size)?,
            "burst" => {
                let wrong = || format!("burst={value} must be BEGIN+LENGTHxFACTOR, as in burst=20s+5sx4");
                let (begin, rest) = value.split_once('+').ok_or_else(wrong)?;
                let (length, factor) = rest.split_once('x').ok_or_else(wrong)?;
                let (from_s, length) = (Unit::Time.read(begin)?, Unit::Time.read(length)?);
                let factor = number(factor).filter(|factor| *factor <= 1000.0).ok_or_else(wrong)?;
                self.bursts.push(Burst { from_s, to_s: from_s + length, factor });
            }
            "swing" => {
                let wrong =
                    || format!("swing={value} must be DEPTH/PERIOD, as in swing=0.5/60s, with a depth of at most 1");
                let (depth, period) = value.split_once('/').ok_or_else(wrong)?;
                let depth = number(depth).filter(|depth| *depth <= 1.0).ok_or_else(wrong)?;
                let period = Unit::Time.read(period)?;
                if period < 0.001 {
                    return Err(wrong());
                }
                self.swing = Some((depth, period));
            }
            _ => {
                let near = did_you_mean(key, &KEYS);
                return Err(format!("there is no {}{near}: {} are known", quote(key), KEYS.join(", ")));
            }
        }
        Ok(())
    }

    /// The rate at a time, as a factor.
    fn factor(&self, seconds: f64) -> f64 {
        let burst: f64 = self
            .bursts
            .iter()
            .filter(|burst| seconds >= burst.from_s && seconds < burst.to_s)
            .map(|burst| burst.factor)
            .product();
        let swing =
            self.swing.map_or(1.0, |(depth, period)| 1.0 + depth * (std::f64::consts::TAU * seconds / period).sin());
        burst * swing
    }

    /// What the factor never exceeds.
    fn peak(&self) -> f64 {
        let burst: f64 = self.bursts.iter().map(|burst| burst.factor.max(1.0)).product();
        burst * (1.0 + self.swing.map_or(0.0, |(depth, _)| depth))
    }

    /// The connections.
    pub(super) fn generate(&self, service: Endpoint, protocol: Protocol, seed: u64) -> Workload {
        let mut times = Random::new(seed, 1);
        let mut whos = Random::new(seed, 2);
        let mut durations = Random::new(seed, 3);
        let mut sizes = Random::new(seed, 4);
        let popularity = Popularity::new(self.clients, self.zipf);
        let peak = self.peak();
        let mut arrivals = Vec::new();
        let mut seconds = 0.0;
        loop {
            // A faster process of which a share is taken: exact whatever the rate does.
            seconds += -times.unit().ln() / (self.rate * peak);
            if seconds >= self.seconds || arrivals.len() == MOST {
                break;
            }
            if times.unit() * peak > self.factor(seconds) {
                continue;
            }
            let client = popularity.draw(&mut whos);
            let port = 1024 + whos.below(64_512) as u16;
            let life_s = self.duration.draw(&mut durations);
            let answered = durations.unit() > self.unanswered;
            let end = match (protocol, answered) {
                (Protocol::UDP, _) => End::Silent,
                (_, true) => End::Closed,
                (_, false) => End::HalfOpen,
            };
            let life_us = if answered { (life_s * 1e6) as u64 } else { 0 };
            let bytes = self.bytes.draw(&mut sizes) as u64;
            arrivals.push(Arrival { at_us: (seconds * 1e6) as u64, life_us, bytes, client, port, end });
        }
        let clients = (0..self.clients).map(|number| client(number, service.address.family())).collect();
        let length_us = (self.seconds * 1e6) as u64;
        Workload { service, protocol, clients, arrivals, carried: 0, length_us, notes: Vec::new() }
    }
}

/// The address of a client: neighbours in rank are no neighbours in address.
fn client(number: u32, family: Family) -> Address {
    let spread = number.wrapping_mul(0x9e37_79b1) % CLIENTS_MAX;
    match family {
        Family::Inet => Address::v4((0x6440_0000 | spread).to_be_bytes()),
        Family::Inet6 => Address::from_bits(0x2001_0db8_00c1 << 80 | u128::from(spread)),
    }
}

/// Which client comes.
enum Popularity {
    Even(u32),
    /// The sums of the ranks' shares.
    Zipf(Vec<f64>),
}

impl Popularity {
    fn new(clients: u32, exponent: f64) -> Self {
        if exponent == 0.0 {
            return Popularity::Even(clients);
        }
        let mut sum = 0.0;
        let share = |rank: u32| {
            sum += f64::from(rank).powf(-exponent);
            sum
        };
        Popularity::Zipf((1..=clients).map(share).collect())
    }

    fn draw(&self, random: &mut Random) -> u32 {
        match self {
            Popularity::Even(clients) => random.below((*clients).into()) as u32,
            Popularity::Zipf(sums) => {
                let at = random.unit() * sums.last().copied().unwrap_or_default();
                sums.partition_point(|&sum| sum < at).min(sums.len() - 1) as u32
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(text: &str, seed: u64) -> Workload {
        let service = Endpoint::new(Address::v4([192, 0, 2, 10]), 80);
        Formula::read(text).unwrap().generate(service, Protocol::TCP, seed)
    }

    /// The rate is kept, a burst is one, and everything repeats by its seed and by no other.
    #[test]
    fn the_formula_is_kept() {
        let work = make("rate=500,seconds=20,burst=10s+5sx3,clients=100,duration=fixed:2s", 1);
        assert!(work.arrivals.len().abs_diff(15_000) < 600, "{}", work.arrivals.len());
        let burst = work.arrivals.iter().filter(|arrival| (10_000_000..15_000_000).contains(&arrival.at_us)).count();
        assert!(burst.abs_diff(7500) < 400, "{burst}");
        assert!(work.arrivals.iter().all(|arrival| arrival.life_us == 2_000_000 && arrival.client < 100));
        assert!(work.arrivals.is_sorted_by_key(|arrival| arrival.at_us));
        let again = make("rate=500,seconds=20,burst=10s+5sx3,clients=100,duration=fixed:2s", 1);
        assert_eq!(work.arrivals, again.arrivals);
        assert_ne!(work.arrivals, make("rate=500,seconds=20,burst=10s+5sx3,clients=100,duration=fixed:2s", 2).arrivals);
    }

    /// Another distribution of durations leaves times and clients as they were.
    #[test]
    fn streams_do_not_disturb_each_other() {
        let who = |work: &Workload| work.arrivals.iter().map(|a| (a.at_us, a.client, a.port)).collect::<Vec<_>>();
        assert_eq!(who(&make("seconds=2,duration=fixed:1s", 5)), who(&make("seconds=2,duration=pareto:1s/1.1", 5)));
    }

    /// With Zipf's law the first client comes far more often than the hundredth; without, all alike.
    #[test]
    fn popularity_follows_zipf() {
        let count = |text: &str, client: u32| make(text, 1).arrivals.iter().filter(|a| a.client == client).count();
        let (first, later) = (count("clients=1000,zipf=1.1", 0), count("clients=1000,zipf=1.1", 99));
        assert!(first > 50 * later.max(1), "{first} {later}");
        assert!(count("clients=100", 0).abs_diff(600) < 120);
    }

    /// No two clients share an address.
    #[test]
    fn clients_are_different() {
        let mut seen: Vec<_> = (0..CLIENTS_MAX / 8).map(|number| client(number, Family::Inet).bits()).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), CLIENTS_MAX as usize / 8);
    }

    /// Mistakes are sentences that say what would be right.
    #[test]
    fn mistakes_are_sentences() {
        for (wrong, word) in [
            ("rate", "NAME=VALUE"),
            ("rate=-1", "number from"),
            ("rate=inf", "number from"),
            ("sconds=1", "did you mean"),
            ("rate=1000000,seconds=1000", "at most"),
            ("burst=5", "BEGIN+"),
            ("swing=2/60s", "DEPTH/PERIOD"),
            ("duration=fast", "not a time"),
            ("seconds=0", "too short"),
            ("clients=0", "number from"),
        ] {
            let told = Formula::read(wrong).unwrap_err();
            assert!(told.contains(word), "{wrong}: {told}");
        }
    }
}
