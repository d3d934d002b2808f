//! The table in Markdown: medians over the rounds, and in brackets the median ratio to plain forwarding of the same round,
//! each with the least and the most, so that a reader sees what is noise.

use xvs_tests::wire::Contender;

use super::rows::{Rows, ends, median, short};

/// Figures, and what their columns are called.
const FLOODS: [(&str, &str); 8] = [
    ("pps", "packets/s"),
    ("own ns", "balancer's CPU ns/packet"),
    ("ns", "all CPU ns/packet"),
    ("paced ns", "all CPU ns/packet at 50 k/s"),
    ("paced loss", "share lost at 50 k/s"),
    ("large pps", "packets/s of 1400 B"),
    ("syn pps", "SYN/s, all new"),
    ("syn ns", "CPU ns/SYN"),
];
const STREAMS: [(&str, &str); 8] = [
    ("p50", "p50 us"),
    ("p99", "p99"),
    ("p99.9", "p99.9"),
    ("loaded p50", "p50 us beside 50 k/s"),
    ("loaded p99", "p99"),
    ("loaded p99.9", "p99.9"),
    ("cps", "connections/s"),
    ("bit/s", "bit/s"),
];

pub(super) fn print(rows: &Rows) {
    for workers in rows.workers() {
        println!(
            "Workers: {workers}. Medians of {} rounds; in brackets the ratio to plain AF_XDP of the same round: median, least \
             .. most. Of plain AF_XDP itself, least .. most of the figure.\n",
            rows.rounds(workers),
        );
        if let Some(wire) = median(rows.figures(workers, Contender::Nobody, "wire ns").into_values()) {
            println!("Generator and wire alone: {} ns a packet, which is in all CPU times below.", short(wire));
        }
        if let Some(wire) = median(rows.figures(workers, Contender::Nobody, "wire paced ns").into_values()) {
            println!("The same at 50 k/s, where each burst sets the generator up anew: {} ns.", short(wire));
        }
        let charged = rows.contenders(workers).into_iter().flat_map(|who| rows.figures(workers, who, "charged"));
        if let Some((least, most)) = ends(charged.map(|(_, share)| share)) {
            println!(
                "Of the time that the processors were busy during full floods, {:.0} to {:.0} % is charged below; the rest is \
                 work of others, and softirq upon an idle processor.",
                least * 100.0,
                most * 100.0,
            );
        }
        println!();
        part(rows, workers, &FLOODS);
        part(rows, workers, &STREAMS);
    }
}

fn part(rows: &Rows, workers: u32, columns: &[(&str, &str)]) {
    let lines: Vec<_> = (rows.contenders(workers).into_iter())
        .map(|who| (who, columns.iter().map(|(name, _)| cell(rows, workers, who, name)).collect::<Vec<_>>()))
        .filter(|(_, cells)| cells.iter().any(Option::is_some))
        .collect();
    if lines.is_empty() {
        return;
    }
    let names: Vec<_> = columns.iter().map(|(_, name)| *name).collect();
    println!("| | {} |\n|{}", names.join(" | "), " --- |".repeat(columns.len() + 1));
    for (who, cells) in lines {
        let cells: Vec<_> = cells.into_iter().map(|cell| cell.unwrap_or_else(|| "-".into())).collect();
        println!("| {} | {} |", who.name(), cells.join(" | "));
    }
    println!();
}

fn cell(rows: &Rows, workers: u32, who: Contender, name: &str) -> Option<String> {
    let figures = rows.figures(workers, who, name);
    let value = short(median(figures.values().copied()).filter(|value| name != "own ns" || *value > 0.0)?);
    if who == Contender::Plain {
        let spread = ends(figures.into_values()).filter(|(least, most)| least < most);
        return Some(
            spread.map_or(value.clone(), |(least, most)| format!("{value} ({} .. {})", short(least), short(most))),
        );
    }
    let plain = rows.figures(workers, Contender::Plain, name);
    let ratios = figures.iter().filter_map(|(round, value)| Some(value / plain.get(round)?));
    let ratios: Vec<_> = ratios.filter(|ratio| ratio.is_finite() && name != "paced loss").collect();
    let Some(ratio) = median(ratios.iter().copied()) else { return Some(value) };
    let spread = ends(ratios).filter(|(least, most)| least < most);
    let spread = spread.map_or_else(String::new, |(least, most)| format!(", {least:.2} .. {most:.2}"));
    Some(format!("{value} ({ratio:.2}{spread})"))
}
