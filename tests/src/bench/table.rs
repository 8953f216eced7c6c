//! The tables of a series.

use std::fmt::Write as _;

use super::outcome::Outcome;
use super::plan::{Plan, System, Workload};
use super::series::Row;
use super::stats::{median, spread};

/// What a baseline must reach of `tcp` on `link`, at these payloads, to be a fair opponent.
const HONEST: [(System, f64); 2] = [(System::TonicItem, 0.15), (System::TonicPacked, 0.55)];
const HONEST_AT: [usize; 2] = [128, 1024];

/// A table of medians, with ratios, and what is to be said of it.
#[must_use]
pub fn render(plan: &Plan, rows: &[Row]) -> String {
    let mut text = String::new();
    let runs = rows.iter().map(|row| row.outcomes.len()).max().unwrap_or_default();
    let _written = writeln!(
        text,
        "\n{}, {} bytes: medians of {runs} runs each, in turn; spread is (most - least) ÷ median",
        plan.workload.name(),
        plan.payload,
    );
    let columns = columns(plan.workload);
    let against = [System::Tcp, System::TonicPacked, System::TonicItem];
    let against: Vec<&Row> = against
        .into_iter()
        .filter_map(|system| rows.iter().find(|row| row.system == system))
        .collect();
    let _written = write!(text, "{:14}", "");
    for column in &columns {
        let _written = write!(text, " {:>12}", column.title);
    }
    for row in &against {
        let _written = write!(text, " {:>14}", format!("÷ {}", row.label));
    }
    let _written = writeln!(text);
    for row in rows {
        let _written = write!(text, "{:14}", row.label);
        for column in &columns {
            let figures: Vec<f64> = row.outcomes.iter().filter_map(column.of).collect();
            let figure = (column.summary)(&figures);
            let shown = figure.map_or("-".to_owned(), column.shown);
            let _written = write!(text, " {shown:>12}");
        }
        for other in &against {
            let ratio = ratio(rate(row), rate(other));
            let _written = write!(text, " {:>14}", ratio.map_or("-".to_owned(), two_places));
        }
        let _written = writeln!(text);
    }
    for line in remarks(plan, rows) {
        let _written = writeln!(text, "{line}");
    }
    text
}

struct Column {
    title: &'static str,
    of: fn(&Outcome) -> Option<f64>,
    summary: fn(&[f64]) -> Option<f64>,
    shown: fn(f64) -> String,
}

impl Column {
    const fn new(
        title: &'static str,
        of: fn(&Outcome) -> Option<f64>,
        shown: fn(f64) -> String,
    ) -> Self {
        Self { title, of, summary: median, shown }
    }
}

fn columns(workload: Workload) -> Vec<Column> {
    let mut columns = vec![
        Column::new("items/s", |o| Some(o.items_per_s), thousands),
        Column {
            summary: spread,
            ..Column::new("spread", |o| Some(o.items_per_s), |s| format!("{:.0} %", s * 100.0))
        },
        Column::new("MB/s", |o| Some(o.MB_per_s), whole),
        Column::new("µs CPU/item", |o| Some(o.cpu_us_per_item), two_places),
        Column::new("MiB at most", |o| Some(o.peak_rss_mb), whole),
    ];
    match workload {
        Workload::Latency => columns.extend([
            Column::new("p50 µs", |o| o.p50_us, whole),
            Column::new("p99 µs", |o| o.p99_us, whole),
            Column::new("p99.9 µs", |o| o.p999_us, whole),
        ]),
        Workload::Fanout => columns.extend([
            Column::new("of the ideal", |o| o.share_of_ideal, |s| format!("{s:.3}")),
            Column {
                summary: |waits| waits.iter().copied().min_by(f64::total_cmp),
                ..Column::new("least wait", |o| o.shortest_wait_ms, |ms| format!("{ms:.4} ms"))
            },
            Column {
                summary: |counts| counts.iter().copied().max_by(f64::total_cmp),
                ..Column::new("most at once", |o| o.most_at_once.map(|n| n as f64), whole)
            },
        ]),
        _ => {}
    }
    columns
}

fn remarks(plan: &Plan, rows: &[Row]) -> Vec<String> {
    let mut remarks = Vec::new();
    let wrong = rows.iter().flat_map(|row| &row.outcomes).filter(|outcome| !outcome.ok).count();
    if wrong > 0 {
        remarks.push(format!("{wrong} RUNS CAME TO A WRONG RESULT: the figures say nothing."));
    }
    let find = |system| rows.iter().find(|row| row.system == system);
    if plan.workload == Workload::Link && HONEST_AT.contains(&plan.payload) {
        for (system, least) in HONEST {
            let share = find(system).zip(find(System::Tcp));
            let Some(share) = share.and_then(|(one, tcp)| ratio(rate(one), rate(tcp))) else {
                continue;
            };
            let name = system.name();
            remarks.push(if share >= least {
                format!("{name} is honest here: {share:.2} of tcp, and it must reach {least}.")
            } else {
                format!(
                    "{name} is NOT HONEST here: {share:.2} of tcp, and it must reach {least}. \
                     Was the machine busy with something else?"
                )
            });
        }
    }
    if plan.workload == Workload::Latency
        && let Some((ours, packed)) = find(System::Stageline).zip(find(System::TonicPacked))
    {
        let ratio_of = |of: fn(&Outcome) -> Option<f64>| {
            ratio(figure(ours, of), figure(packed, of)).map_or("-".to_owned(), two_places)
        };
        let (p50, p99) = (ratio_of(|o| o.p50_us), ratio_of(|o| o.p99_us));
        remarks.push(format!("stageline ÷ tonic-packed: p50 {p50}, p99 {p99}."));
    }
    // A second row of Stageline's is there to be compared with the first.
    let mut ours = rows.iter().filter(|row| row.system == System::Stageline);
    if let (Some(one), Some(other)) = (ours.next(), ours.next())
        && let Some(ratio) = ratio(rate(one), rate(other))
    {
        let what = other.label.trim();
        remarks.push(format!("stageline ÷ stageline, {what}: {ratio:.2} of its items a second."));
    }
    remarks
}

fn figure(row: &Row, of: fn(&Outcome) -> Option<f64>) -> Option<f64> {
    median(&row.outcomes.iter().filter_map(of).collect::<Vec<_>>())
}

fn rate(row: &Row) -> Option<f64> {
    figure(row, |outcome| Some(outcome.items_per_s))
}

fn ratio(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    Some(one? / other?)
}

fn two_places(figure: f64) -> String {
    format!("{figure:.2}")
}

fn whole(figure: f64) -> String {
    format!("{figure:.0}")
}

fn thousands(figure: f64) -> String {
    match figure {
        f if f >= 1e7 => format!("{:.1} M", f / 1e6),
        f if f >= 1e6 => format!("{:.2} M", f / 1e6),
        f if f >= 1e4 => format!("{:.0} k", f / 1e3),
        f => format!("{f:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::plan::Wait;

    fn row(system: System, plan: Plan, rates: [f64; 3]) -> Row {
        let outcomes = rates.map(|items_per_s| Outcome {
            system,
            workload: plan.workload,
            payload: plan.payload,
            items: 1,
            ack: true,
            ok: true,
            seconds: 1.0,
            items_per_s,
            MB_per_s: 1.0,
            cpu_seconds: 1.0,
            cpu_us_per_item: 1.0,
            peak_rss_mb: 1.0,
            procs: 2,
            p50_us: None,
            p99_us: None,
            p999_us: None,
            shortest_wait_ms: None,
            most_at_once: None,
            share_of_ideal: None,
        });
        Row { label: system.name().to_owned(), system, plan, outcomes: outcomes.to_vec() }
    }

    #[test]
    fn a_table_has_medians_ratios_and_the_check_of_the_baselines() {
        let workload = Workload::Link;
        let plan =
            Plan { workload, payload: 128, items: 1, rate: 1, workers: 1, wait: Wait::First };
        let mut rows = vec![
            row(System::Stageline, plan, [9e6, 7e6, 8e6]),
            row(System::TonicItem, plan, [1e6, 1e6, 1e6]),
            row(System::TonicPacked, plan, [6e6, 5e6, 7e6]),
            row(System::Tcp, plan, [10e6, 10e6, 10e6]),
        ];
        let text = render(&plan, &rows);
        let ours = text.lines().find(|line| line.starts_with("stageline")).unwrap();
        assert!(ours.contains("8.00 M"), "{text}");
        assert!(ours.ends_with("0.80           1.33           8.00"), "{text}");
        assert!(text.contains("tonic-item is NOT HONEST here: 0.10"), "{text}");
        assert!(text.contains("tonic-packed is honest here: 0.60"), "{text}");
        assert!(!text.contains("WRONG"), "{text}");

        rows[0].outcomes[1].ok = false;
        assert!(render(&plan, &rows).contains("1 RUNS CAME TO A WRONG RESULT"));
    }
}
