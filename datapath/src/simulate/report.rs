//! The report: one HTML file that needs no other, readable without its script, on a phone and on paper.
//!
//! Invariant: every text goes through [`escape`], the numbers for the script through [`embedded`], and there is no
//! address of anything on a network in the file. It ranks nothing: schedulers stand in the order of the command line.

use std::fmt::Write;

use super::outcome::{Moment, Outcome, Reaction, Simulation};
use super::plot::{Band, Curve, Plot, escape, plain};
use super::summary::percent;

const STYLE: &str = include_str!("report.css");
const SCRIPT: &str = include_str!("report.js");
const READING: &str = include_str!("reading.html");
/// With more servers a card shows the spread of all instead of each.
const LINES: usize = 24;
/// Bytes of a value that gets twice the room.
const LONG: usize = 40;
/// More moments than that are left to the JSON.
const MOMENTS: usize = 40;

/// The whole file.
pub(super) fn render(simulation: &Simulation) -> String {
    let title: Vec<&str> = simulation.schedulers.iter().map(|outcome| outcome.label.as_str()).collect();
    let title = escape(&title.join(", "));
    let page = Page { simulation, moments: simulation.moments.iter().map(|moment| moment.at).collect() };
    let parts =
        [page.head(), page.glance(), page.loads(), page.over_time(), page.disruption(), page.cost(), page.plugins()];
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\"><title>xvs simulate: {title}</title>\n\
         <style>{STYLE}</style></head><body><main>{}{READING}\
         <footer>xvs {}</footer></main><div id=\"tip\" hidden></div>\n\
         <script type=\"application/json\" id=\"data\">{}</script>\n<script>{SCRIPT}</script></body></html>\n",
        parts.concat(),
        simulation.version,
        embedded(simulation)
    )
}

/// The numbers, as JSON that can not end the element that it stands in.
fn embedded(simulation: &Simulation) -> String {
    // Numbers and strings can always be written.
    serde_json::to_string(simulation).unwrap_or_default().replace('<', "\\u003c")
}

struct Page<'a> {
    simulation: &'a Simulation,
    moments: Vec<f64>,
}

impl Page<'_> {
    fn head(&self) -> String {
        let Simulation { schedulers, servers, seconds, .. } = self.simulation;
        let connections = schedulers.first().map_or(0, |outcome| outcome.served + outcome.refused);
        let mut html = format!(
            "<header><h1>{} new connections, {} schedulers</h1><p class=\"sub\">{} servers, {} s of virtual time, {} events</p>\
             <details open><summary>What was simulated</summary><dl>",
            grouped(connections),
            schedulers.len(),
            servers.len(),
            plain(*seconds),
            self.simulation.moments.iter().map(|moment| moment.events.len()).sum::<usize>(),
        );
        for (name, value) in &self.simulation.inputs {
            let class = if value.len() > LONG { " class=\"long\"" } else { "" };
            let _ = write!(html, "<div{class}><dt>{}</dt><dd>{}</dd></div>", escape(name), escape(value));
        }
        html + "</dl></details></header>"
    }

    fn glance(&self) -> String {
        let slow = self.simulation.schedulers.iter().any(|outcome| outcome.slowdown != 1.0);
        let eventful = !self.simulation.moments.is_empty();
        let mut html = "<section><h2>At a glance</h2><div class=\"wide\"><table><thead><tr><th>scheduler<th>served\
                        <th>refused<th>broken<th>fullest / mean<small>over time</small><th>fullest / mean<small>worst</small>\
                        <th>Jain&#39;s index<th>came back elsewhere"
            .to_owned();
        html += if eventful { "<th>moved by events<small>probes, mean</small>" } else { "" };
        html += if slow { "<th>slowdown" } else { "" };
        html += "<th>ns / pick</tr></thead><tbody>";
        for (number, (outcome, measured)) in
            self.simulation.schedulers.iter().zip(&self.simulation.measured).enumerate()
        {
            let options = if outcome.options.is_empty() { String::new() } else { format!(" {}", outcome.options) };
            let name =
                if outcome.label == outcome.scheduler { options } else { format!("{}{options}", outcome.scheduler) };
            let _ = write!(
                html,
                "<tr><th class=\"s{number}\"><i></i>{}<small>{}</small><td>{}<td>{}<td>{}<td>{:.3}<td>{:.2}<td>{:.4}<td>{}",
                escape(&outcome.label),
                escape(&name),
                grouped(outcome.served),
                grouped(outcome.refused),
                grouped(outcome.broken),
                outcome.balance.ratio_mean,
                outcome.balance.ratio_worst,
                outcome.balance.jain_mean,
                percent(outcome.elsewhere, outcome.returned),
            );
            if let Some(moved) = super::summary::moved(outcome) {
                let _ = write!(html, "<td>{:.1} %", moved * 100.0);
            }
            if slow {
                let _ = write!(html, "<td>{:.2}", outcome.slowdown);
            }
            let _ = write!(html, "<td>{:.0}</tr>", measured.pick.median_ns);
        }
        html + "</tbody></table></div></section>"
    }

    /// Small multiples: a card for each scheduler, all with the same scale.
    fn loads(&self) -> String {
        let Simulation { schedulers, servers, times, .. } = self.simulation;
        let span = times.first().copied().unwrap_or(1.0);
        let many = servers.len() > LINES;
        let mut html = "<section class=\"loads\"><h2>Load of each server</h2>\
             <input type=\"radio\" name=\"mode\" id=\"mode-alive\" checked><label for=\"mode-alive\">connections</label>\
             <input type=\"radio\" name=\"mode\" id=\"mode-begun\"><label for=\"mode-begun\">new connections / s</label>"
            .to_owned();
        if many {
            html += "<p class=\"note\">The line is the mean of all servers; the area reaches from the emptiest to the fullest.</p>";
        } else {
            html += "<p class=\"legend\" data-toggle=\"server\">";
            for (number, server) in servers.iter().enumerate() {
                let style = hue(number, servers.len());
                let _ = write!(
                    html,
                    "<button type=\"button\" data-n=\"{number}\" style=\"{style}\"><i></i>{}</button>",
                    escape(server)
                );
            }
            html += "</p>";
        }
        html += "<div class=\"cards\">";
        type Mode = (&'static str, fn(&Outcome) -> &Vec<Vec<u32>>, f64);
        let modes: [Mode; 2] =
            [("alive", |outcome| &outcome.series.alive, 1.0), ("begun", |outcome| &outcome.series.begun, span)];
        let tops = modes.map(|(_, series, divisor)| {
            let all = schedulers.iter().flat_map(|outcome| series(outcome).iter().flatten());
            nice(f64::from(all.copied().max().unwrap_or(1)) / divisor)
        });
        for (number, outcome) in schedulers.iter().enumerate() {
            let Outcome { balance, .. } = outcome;
            let _ = write!(
                html,
                "<article><h3 class=\"s{number}\"><i></i>{}<small>fullest / mean {:.3}</small></h3>",
                escape(&outcome.label),
                balance.ratio_mean
            );
            for ((mode, series, divisor), top) in modes.iter().zip(tops) {
                let series = series(outcome);
                let (bands, curves) =
                    if many { spread(series, *divisor) } else { (Vec::new(), lines(series, *divisor)) };
                let label = format!("{}: {mode} connections by server over time", outcome.label);
                let data = format!("data-kind=\"{mode}\" data-s=\"{number}\"");
                html += &Plot {
                    class: mode,
                    label,
                    data,
                    times,
                    moments: &self.moments,
                    range: (0.0, top),
                    unit: "",
                    bands,
                    curves,
                }
                .render();
            }
            html += "</article>";
        }
        html + "</div></section>"
    }

    /// All schedulers in one plot, for each thing that changes over time.
    fn over_time(&self) -> String {
        let Simulation { schedulers, times, .. } = self.simulation;
        let mut html = "<section><h2>Over time</h2><p class=\"legend\" data-toggle=\"scheduler\">".to_owned();
        for (number, outcome) in schedulers.iter().enumerate() {
            let label = escape(&outcome.label);
            let _ =
                write!(html, "<button type=\"button\" class=\"s{number}\" data-n=\"{number}\"><i></i>{label}</button>");
        }
        html += "</p>";
        let mut draw = |title: &str,
                        kind: &str,
                        low: f64,
                        top: Option<f64>,
                        unit: &str,
                        values: &dyn Fn(&Outcome) -> Vec<Option<f64>>| {
            let all: Vec<Vec<Option<f64>>> = schedulers.iter().map(values).collect();
            let top = top.unwrap_or_else(|| low + nice(reach(&all, kind == "ratio") - low));
            let curve =
                |(number, values)| Curve { class: format!("line s{number} n{number}"), style: String::new(), values };
            let curves = all.into_iter().enumerate().map(curve).collect();
            let data = format!("data-kind=\"{kind}\"");
            let plot = Plot {
                class: "tall",
                label: title.to_owned(),
                data,
                times,
                moments: &self.moments,
                range: (low, top),
                unit,
                bands: Vec::new(),
                curves,
            };
            let _ = write!(html, "<h3>{}</h3>{}", escape(title), plot.render());
        };
        draw(
            "Imbalance: connections of the fullest server against the mean, by weight",
            "ratio",
            1.0,
            None,
            "",
            &|outcome| outcome.series.ratio.clone(),
        );
        if schedulers.iter().any(|outcome| outcome.returned > 0) {
            draw("Clients that came back and met another server", "elsewhere", 0.0, Some(100.0), " %", &|outcome| {
                let pairs = outcome.series.elsewhere.iter().zip(&outcome.series.returned);
                pairs.map(|(&part, &whole)| (whole > 0).then(|| f64::from(part) * 100.0 / f64::from(whole))).collect()
            });
        }
        if schedulers.iter().any(|outcome| outcome.refused > 0) {
            let span = times.first().copied().unwrap_or(1.0);
            draw("Refused connections / s", "refused", 0.0, None, "", &|outcome| {
                outcome.series.refused.iter().map(|&count| Some(f64::from(count) / span)).collect()
            });
        }
        html + "</section>"
    }

    fn disruption(&self) -> String {
        if self.moments.is_empty() {
            return String::new();
        }
        let mut html = "<section><h2>What each event disturbed</h2><p class=\"key\"><span><b class=\"forced\"></b>had to move</span>\
             <span><b class=\"moved\"></b>moved</span><span><b class=\"moved\"><b class=\"anyway\"></b></b>would have moved anyway</span>\
             <span><b class=\"least\"></b>the least possible</span></p><div class=\"cards\">"
            .to_owned();
        for (index, moment) in self.simulation.moments.iter().enumerate().take(MOMENTS) {
            html += &self.moment(index, moment);
        }
        html += "</div>";
        if self.moments.len() > MOMENTS {
            let _ = write!(html, "<p class=\"note\">{} more stand in the JSON.</p>", self.moments.len() - MOMENTS);
        }
        html + "</section>"
    }

    fn moment(&self, index: usize, moment: &Moment) -> String {
        let mut html = format!("<article class=\"event\"><h3><em>{}</em>{} s</h3>", index + 1, plain(moment.at));
        for words in moment.events.iter().take(6) {
            let _ = write!(html, "<p class=\"words\">{}</p>", escape(words));
        }
        if let Some(more) = moment.events.len().checked_sub(6).filter(|&more| more > 0) {
            let _ = write!(html, "<p class=\"words\">and {more} more</p>");
        }
        let least = moment.least * 100.0;
        for (number, outcome) in self.simulation.schedulers.iter().enumerate() {
            let Some(reaction) = outcome.moments.get(index) else { continue };
            let probes = reaction.probes;
            let [moved, anyway, forced] = [probes.moved, probes.anyway, probes.forced].map(|share| share * 100.0);
            let _ = write!(
                html,
                "<div class=\"row s{number}\"><span>{}</span><div class=\"bar\" role=\"img\" aria-label=\"{moved:.1} % moved\">\
                 <b class=\"moved\" style=\"width:{moved:.2}%\"></b><b class=\"forced\" style=\"width:{:.2}%\"></b>\
                 <b class=\"anyway\" style=\"width:{anyway:.2}%\"></b><b class=\"least\" style=\"left:{least:.2}%\"></b></div>\
                 <span>{moved:.1} %</span><small>{}</small></div>",
                escape(&outcome.label),
                forced.min(moved),
                real(reaction),
            );
        }
        html + "</article>"
    }

    fn cost(&self) -> String {
        let most = self.simulation.measured.iter().map(|measured| measured.pick.median_ns * 1.25).fold(1.0, f64::max);
        let mut html = "<section><h2>Cost of a pick</h2><p class=\"note\">Measured on the machine that made this report: the only \
             numbers here that do not repeat.</p><article class=\"event costs\">"
            .to_owned();
        for (number, measured) in self.simulation.measured.iter().enumerate() {
            let pick = measured.pick;
            let share = |ns: f64| ns / most * 100.0;
            let _ = write!(
                html,
                "<div class=\"row s{number}\"><span>{}</span><div class=\"bar\"><b class=\"moved\" style=\"width:{:.2}%\"></b>\
                 <b class=\"least\" style=\"left:{:.2}%\"></b></div><span>{:.0} ns</span>\
                 <small>{:.0} to {:.0} ns; the whole simulation took {:.2} s</small></div>",
                escape(&measured.label),
                share(pick.median_ns),
                share(pick.p90_ns).min(99.5),
                pick.median_ns,
                pick.least_ns,
                pick.p90_ns,
                measured.seconds,
            );
        }
        html + "</article></section>"
    }

    /// How plugins did, if there are any.
    fn plugins(&self) -> String {
        let mut html = String::new();
        for outcome in &self.simulation.schedulers {
            let Some(record) = &outcome.plugin else { continue };
            let faults: Vec<String> = record.faults.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
            let faults = if faults.is_empty() { "none".to_owned() } else { faults.join(", ") };
            let last = record.last_fault.as_ref().map_or_else(String::new, |fault| format!(" ({fault})"));
            let _ = write!(
                html,
                "<tr><th>{}<small>{}</small><td>{}<td>{}<td>{}<td>{} of {}<td class=\"long\">{}{}<td>{}</tr>",
                escape(&outcome.label),
                record.sha256.get(..12).unwrap_or_default(),
                grouped(record.picks),
                grouped(record.fallback),
                grouped(record.overruled),
                grouped(record.worst_fuel),
                grouped(record.budget),
                escape(&faults),
                escape(&last),
                record.quarantines,
            );
        }
        if html.is_empty() {
            return html;
        }
        format!(
            "<section><h2>Plugins</h2><div class=\"wide\"><table><thead><tr><th>plugin<th>chose<th>left to wlc<th>overruled\
             <th>worst fuel<th class=\"long\">faults<th>quarantines</tr></thead><tbody>{html}</tbody></table></div></section>"
        )
    }
}

/// What real clients met after a moment, and how many probes found no server.
fn real(reaction: &Reaction) -> String {
    let mut words = match reaction.returned {
        0 => "no client came back".to_owned(),
        returned => {
            format!("{} of {} clients that came back", percent(reaction.elsewhere, returned), grouped(returned))
        }
    };
    if reaction.probes.refused > 0.0 {
        let _ = write!(words, "; {:.1} % refused", reaction.probes.refused * 100.0);
    }
    words
}

/// A curve for each server.
fn lines(series: &[Vec<u32>], divisor: f64) -> Vec<Curve> {
    let curve = |(number, values): (usize, &Vec<u32>)| Curve {
        class: format!("line n{number}"),
        style: hue(number, series.len()),
        values: values.iter().map(|&value| Some(f64::from(value) / divisor)).collect(),
    };
    series.iter().enumerate().map(curve).collect()
}

/// The spread of all servers, and their mean.
fn spread(series: &[Vec<u32>], divisor: f64) -> (Vec<Band>, Vec<Curve>) {
    let spans = series.first().map_or(0, Vec::len);
    let at = |span: usize| series.iter().map(move |values| f64::from(values[span]) / divisor);
    let low = (0..spans).map(|span| at(span).fold(f64::INFINITY, f64::min)).collect();
    let high = (0..spans).map(|span| at(span).fold(0.0, f64::max)).collect();
    let mean = (0..spans).map(|span| Some(at(span).sum::<f64>() / series.len() as f64)).collect();
    (vec![Band { low, high }], vec![Curve { class: "line mean".to_owned(), style: String::new(), values: mean }])
}

/// What the values reach; if some may be cut off, a few far outside do not flatten the rest.
fn reach(all: &[Vec<Option<f64>>], cut: bool) -> f64 {
    let mut known: Vec<f64> = all.iter().flatten().flatten().copied().collect();
    known.sort_by(f64::total_cmp);
    let most = known.last().copied().unwrap_or(1.0);
    let usual = known.get(known.len() * 95 / 100).copied().unwrap_or(1.0);
    if cut { most.min(usual * 2.0) } else { most }
}

/// A little more than this, and above 0.
fn nice(value: f64) -> f64 {
    (value * 1.05).max(0.01)
}

/// The colour of one of so many servers: all hues once, of three lightnesses in turn.
fn hue(number: usize, count: usize) -> String {
    format!("--h:{};--d:{}%", number * 360 / count.max(1), (number % 3) as i32 * 11 - 11)
}

/// Thousands apart, by a thin space.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push('\u{202f}');
        }
        grouped.push(digit);
    }
    grouped
}
