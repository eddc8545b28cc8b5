//! What many histories with bad disks showed.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use super::BadDisks;
use crate::disk::rot::Rot;
use crate::disk::schedule::Trouble;

/// Measurements of which something is said.
const MEASURED_MIN: usize = 100;

/// The value below which so many of a hundred are; they are sorted.
fn at(sorted: &[Duration], part: usize) -> Duration {
    sorted.get((sorted.len() * part / 100).min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

impl BadDisks {
    /// Histories in which each trouble was met.
    #[must_use]
    pub fn histories_with<'a>(all: impl Iterator<Item = &'a BadDisks>) -> BTreeMap<String, usize> {
        let mut met: BTreeMap<String, usize> =
            Trouble::ALL.iter().map(|kind| (format!("{kind:?}"), 0)).collect();
        met.extend(Rot::ALL.iter().map(|rot| (format!("Rotten{rot:?}"), 0)));
        for disks in all {
            for kind in Trouble::ALL {
                *met.entry(format!("{kind:?}")).or_default() += usize::from(disks.happened.of(kind) > 0);
            }
            for (rot, count) in Rot::ALL.iter().zip(disks.rotten) {
                *met.entry(format!("Rotten{rot:?}")).or_default() += usize::from(count > 0);
            }
            *met.entry("FilesHaveNames".to_owned()).or_default() += usize::from(disks.named > 0);
            *met.entry("Cut".to_owned()).or_default() += usize::from(disks.cuts.0 > 0);
            *met.entry("CutAgainAtStart".to_owned()).or_default() += usize::from(disks.cuts.1 > 0);
            *met.entry("NewDisk".to_owned()).or_default() += usize::from(disks.replaced > 0);
        }
        met
    }

    /// Of the times without a write, the one below which 99 of a hundred are; none of too few.
    pub fn gap_p99<'a>(all: impl Iterator<Item = &'a BadDisks>) -> Option<Duration> {
        let mut gaps: Vec<Duration> = all.filter_map(|disks| disks.gap).map(|gap| gap.longest).collect();
        gaps.sort_unstable();
        (gaps.len() >= MEASURED_MIN).then(|| at(&gaps, 99))
    }

    /// A few lines.
    pub fn summary<'a>(all: impl Iterator<Item = &'a BadDisks> + Clone) -> String {
        let mut text = String::from("histories with");
        for (name, count) in BadDisks::histories_with(all.clone()) {
            // A string takes everything.
            let _ = write!(text, " {name}: {count},");
        }
        let sum = |of: fn(&BadDisks) -> usize| all.clone().map(of).sum::<usize>();
        let _ = write!(
            text,
            " {} starts refused while the disk was bad, {} nodes told of rot and did not start",
            sum(|disks| disks.refused_starts),
            sum(|disks| disks.told),
        );
        let mut stops: BTreeMap<&str, usize> = BTreeMap::new();
        for why in all.clone().flat_map(|disks| &disks.stops) {
            *stops.entry(why.split(':').next().unwrap_or_default()).or_default() += 1;
        }
        let _ = write!(text, "; stopped by themselves: {stops:?}");
        let mut gaps: BTreeMap<(bool, String), Vec<Duration>> = BTreeMap::new();
        for gap in all.filter_map(|disks| disks.gap) {
            for name in [format!("{:?}", gap.trouble), " all".to_owned()] {
                gaps.entry((!gap.of_leader, name)).or_default().push(gap.longest);
            }
        }
        for ((of_follower, name), mut gaps) in gaps {
            gaps.sort_unstable();
            let whose = if of_follower { "follower" } else { "leader" };
            let (median, p99, longest) = (at(&gaps, 50), at(&gaps, 99), at(&gaps, 100));
            let _ = write!(
                text,
                "\nwithout a write, disk of the {whose}, {name}: {} histories, median {} ms, p99 {} ms, longest {} ms",
                gaps.len(),
                median.as_millis(),
                p99.as_millis(),
                longest.as_millis()
            );
        }
        text
    }
}
