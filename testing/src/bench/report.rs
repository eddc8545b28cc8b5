//! Results as a table, as CSV, and as input of a plot.

use std::fmt::Write as _;

use super::results::{Measurement, Results, Spread};

/// A Markdown table: a row for each measurement, a column for each contender, and the ratio of the first to the best of the
/// others.
#[must_use]
pub fn markdown(results: &Results, contenders: &[String]) -> String {
    let mut text = String::from("| nodes | measurement | ");
    text.push_str(&contenders.join(" | "));
    text.push_str(" | ours / best upstream |\n|---|---|");
    text.push_str(&"---|".repeat(contenders.len() + 1));
    text.push('\n');
    for measurement in results.measurements() {
        // Writing to a string cannot fail.
        let _ = write!(text, "| {} | {} |", measurement.nodes, measurement.name);
        for contender in contenders {
            let cell = results.spread(measurement, contender).map_or_else(|| "-".to_owned(), cell);
            let _ = write!(text, " {cell} |");
        }
        let ratio = ratio(results, measurement, contenders);
        let _ = writeln!(text, " {} |", ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")));
    }
    text
}

fn cell(spread: Spread) -> String {
    let digits = match spread.median {
        median if median < 10.0 => 2,
        median if median < 100.0 => 1,
        _ => 0,
    };
    let Spread { median, low, high } = spread;
    if low == high {
        return format!("{median:.digits$}");
    }
    format!("{median:.digits$} ({low:.digits$}..{high:.digits$})")
}

/// The first contender's median divided by the best median of the others.
fn ratio(results: &Results, measurement: &Measurement, contenders: &[String]) -> Option<f64> {
    let [first, others @ ..] = contenders else { return None };
    let ours = results.spread(measurement, first)?.median;
    let medians =
        others.iter().filter_map(|other| results.spread(measurement, other)).map(|spread| spread.median);
    let more_is_better = measurement.name.ends_with("per second");
    let best = medians.reduce(|a, b| if more_is_better { a.max(b) } else { a.min(b) })?;
    Some(ours / best)
}

/// One line for each number: `nodes,measurement,library,round,value`.
#[must_use]
pub fn csv(results: &Results, contenders: &[String]) -> String {
    let mut text = String::from("nodes,measurement,library,round,value\n");
    for measurement in results.measurements() {
        for contender in contenders {
            for (round, value) in (1..).zip(results.values(measurement, contender)) {
                let Measurement { nodes, name } = measurement;
                // Writing to a string cannot fail.
                let _ = writeln!(text, "{nodes},\"{name}\",\"{contender}\",{round},{value}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_to_the_best_of_the_others_whichever_way_is_better() {
        let mut results = Results::default();
        for (name, values) in [("x: per second", [40.0, 2.0, 4.0]), ("x: p50 us", [5.0, 20.0, 10.0])] {
            for (contender, value) in ["ours", "old", "new"].into_iter().zip(values) {
                results.add(contender, 3, name, value);
            }
        }
        let contenders = ["ours", "old", "new"].map(str::to_owned);

        let table = markdown(&results, &contenders);

        assert!(table.contains("| 3 | x: per second | 40.0 | 2.00 | 4.00 | 10.00 |"), "{table}");
        assert!(table.contains("| 3 | x: p50 us | 5.00 | 20.0 | 10.0 | 0.50 |"), "{table}");
        assert!(csv(&results, &contenders).contains("3,\"x: per second\",\"new\",1,4\n"));
    }
}
