//! Numbers of all rounds, by measurement and contender.

use std::collections::BTreeMap;

/// A measurement: what is measured of a cluster of how many nodes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Measurement {
    /// Nodes of the cluster.
    pub nodes: usize,
    /// Name with unit.
    pub name: String,
}

/// All numbers.
#[derive(Clone, Debug, Default)]
pub struct Results {
    order: Vec<Measurement>,
    values: BTreeMap<(Measurement, String), Vec<f64>>,
}

/// The middle of a series, with its ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Median.
    pub median: f64,
    /// Lowest.
    pub low: f64,
    /// Highest.
    pub high: f64,
}

impl Results {
    /// Adds a number.
    pub fn add(&mut self, contender: &str, nodes: usize, name: &str, value: f64) {
        let measurement = Measurement { nodes, name: name.to_owned() };
        if !self.order.contains(&measurement) {
            self.order.push(measurement.clone());
        }
        self.values.entry((measurement, contender.to_owned())).or_default().push(value);
    }

    /// Measurements in the order in which they first came.
    #[must_use]
    pub fn measurements(&self) -> &[Measurement] {
        &self.order
    }

    /// The numbers of a contender, a round each.
    #[must_use]
    pub fn values(&self, measurement: &Measurement, contender: &str) -> &[f64] {
        self.values.get(&(measurement.clone(), contender.to_owned())).map_or(&[], Vec::as_slice)
    }

    /// Median and ends of a contender's numbers.
    #[must_use]
    pub fn spread(&self, measurement: &Measurement, contender: &str) -> Option<Spread> {
        let mut sorted = self.values(measurement, contender).to_vec();
        sorted.sort_by(f64::total_cmp);
        let (low, high) = (*sorted.first()?, *sorted.last()?);
        let (upper, lower) = (sorted[sorted.len() / 2], sorted[(sorted.len() - 1) / 2]);
        Some(Spread { median: f64::midpoint(lower, upper), low, high })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_median_and_ends_of_the_rounds() {
        let mut results = Results::default();
        for value in [3.0, 1.0, 10.0] {
            results.add("a", 1, "x", value);
        }
        results.add("b", 1, "x", 2.0);
        results.add("b", 1, "x", 4.0);

        let measurement = results.measurements()[0].clone();
        assert_eq!(results.spread(&measurement, "a"), Some(Spread { median: 3.0, low: 1.0, high: 10.0 }));
        assert_eq!(results.spread(&measurement, "b"), Some(Spread { median: 3.0, low: 2.0, high: 4.0 }));
        assert_eq!(results.spread(&measurement, "c"), None);
    }
}
