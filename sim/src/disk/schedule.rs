//! When a disk is bad, and how: drawn from a seed. What a schedule says of a call depends on the time alone.

use std::fmt::{self, Display, Formatter};
use std::ops::Add;
use std::path::Path;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;

use super::{EIO, ENOSPC, EROFS};

/// Longer than any history.
const FOR_EVER: Duration = Duration::from_secs(1_000_000);
/// Longest time of a call of a slow disk.
const SLOW_MAX: Duration = Duration::from_millis(800);
/// Shortest spell of a trouble that does not stay.
const SPELL_MIN: Duration = Duration::from_millis(300);

/// How a disk is bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// Writes and syncs take long.
    Slow,
    /// Writes do not return.
    HangingWrites,
    /// Syncs do not return.
    HangingSyncs,
    /// What changes names does not return.
    HangingNames,
    /// Nothing on the files of term and vote returns, and nothing else hangs.
    HangingVotes,
    /// Writes and syncs of segments do not return, and nothing else hangs.
    HangingLog,
    /// There is no space (ENOSPC).
    NoSpace,
    /// One call fails with EIO.
    ErrorOnce,
    /// All calls fail with EIO.
    Errors,
    /// Nothing can be changed (EROFS).
    ReadOnly,
}

impl Trouble {
    /// All of them.
    pub const ALL: [Trouble; 10] = [
        Trouble::Slow,
        Trouble::HangingWrites,
        Trouble::HangingSyncs,
        Trouble::HangingNames,
        Trouble::HangingVotes,
        Trouble::HangingLog,
        Trouble::NoSpace,
        Trouble::ErrorOnce,
        Trouble::Errors,
        Trouble::ReadOnly,
    ];

    /// Whether term and vote can be stored all the same.
    #[must_use]
    pub fn spares_votes(self) -> bool {
        matches!(self, Trouble::HangingLog | Trouble::NoSpace)
    }

    /// Whether calls of this kind wait until the spell is over.
    fn hangs(self, call: Call) -> bool {
        match self {
            Trouble::HangingWrites => call.kind == Kind::Write,
            Trouble::HangingSyncs => call.kind == Kind::Sync,
            Trouble::HangingNames => call.kind == Kind::Name,
            Trouble::HangingVotes => call.file == File::Votes && call.kind != Kind::Look,
            Trouble::HangingLog => {
                call.file == File::Segment && matches!(call.kind, Kind::Write | Kind::Sync)
            }
            _ => false,
        }
    }

    /// The error of such a call.
    fn error(self, call: Call) -> Option<i32> {
        let changes = matches!(call.kind, Kind::Write | Kind::Name);
        match self {
            Trouble::NoSpace => call.needs_space.then_some(ENOSPC),
            Trouble::ErrorOnce | Trouble::Errors => (call.kind != Kind::Look).then_some(EIO),
            Trouble::ReadOnly => changes.then_some(EROFS),
            _ => None,
        }
    }
}

/// What a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Answered by what the kernel knows of names and lengths.
    Look,
    Read,
    Write,
    Sync,
    Name,
}

/// What it does it to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum File {
    Votes,
    Segment,
    Other,
}

/// A call, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    kind: Kind,
    file: File,
    needs_space: bool,
}

impl Call {
    /// The call of an operation of the disk.
    pub(super) fn of(what: &str, path: &Path, needs_space: bool) -> Call {
        let kind = match what {
            "read" => Kind::Read,
            "write" | "set length" => Kind::Write,
            "sync data" | "sync all" | "sync directory" => Kind::Sync,
            "create unnamed" | "rename" | "remove" | "link" => Kind::Name,
            // Makes a file.
            "open" if needs_space => Kind::Name,
            _ => Kind::Look,
        };
        let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        let file = match &*name {
            name if name.starts_with("metadata") => File::Votes,
            name if name.starts_with("open-") => File::Segment,
            _ => File::Other,
        };
        Call { kind, file, needs_space }
    }
}

/// A time in which a disk is bad, counted from the begin of its schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spell {
    /// How.
    pub trouble: Trouble,
    /// Its begin.
    pub from: Duration,
    /// Its end; none if it stays.
    pub until: Option<Duration>,
    /// Longest time of a call, if it is slow.
    pub slow_max: Duration,
}

impl Spell {
    /// A spell that begins and ends within a time, or stays.
    pub fn draw(random: &mut SmallRng, trouble: Trouble, within: Duration, stays: bool) -> Spell {
        let from = random.random_range(Duration::ZERO..within / 2);
        let until = random.random_range(from + SPELL_MIN..=within.max(from + SPELL_MIN));
        let slow_max = random.random_range(SLOW_MAX / 40..SLOW_MAX);
        Spell { trouble, from, until: (!stays).then_some(until), slow_max }
    }

    /// Its end.
    fn end(&self) -> Duration {
        self.until.unwrap_or(FOR_EVER)
    }
}

impl Display for Spell {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Spell { trouble, from, until, slow_max } = self;
        write!(f, "{trouble:?} from {} ms ", from.as_millis())?;
        match until {
            Some(until) => write!(f, "to {} ms", until.as_millis())?,
            None => write!(f, "for ever")?,
        }
        if *trouble == Trouble::Slow { write!(f, ", {} ms a call", slow_max.as_millis()) } else { Ok(()) }
    }
}

/// All spells of a disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule(pub Vec<Spell>);

impl Schedule {
    /// The spells at a time.
    fn at(&self, now: Duration) -> impl Iterator<Item = &Spell> {
        self.0.iter().filter(move |spell| (spell.from..spell.end()).contains(&now))
    }

    /// Whether one of them never ends.
    #[must_use]
    pub fn stays(&self) -> bool {
        self.0.iter().any(|spell| spell.until.is_none())
    }

    /// How long a call takes that begins now, and why.
    fn delay(&self, now: Duration, call: Call, random: &mut SmallRng) -> Option<(Trouble, Duration)> {
        let mut delays = self.at(now).filter_map(|spell| {
            if spell.trouble.hangs(call) {
                return Some((spell.trouble, spell.end() - now));
            }
            let is_slow = spell.trouble == Trouble::Slow && matches!(call.kind, Kind::Write | Kind::Sync);
            is_slow.then(|| (spell.trouble, random.random_range(Duration::ZERO..spell.slow_max)))
        });
        let first = delays.next()?;
        Some(delays.fold(first, |longest, other| if other.1 > longest.1 { other } else { longest }))
    }
}

impl Display for Schedule {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let spells: Vec<String> = self.0.iter().map(Spell::to_string).collect();
        f.write_str(&spells.join(", "))
    }
}

/// How many calls met each trouble, in the order of `Trouble::ALL`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Happened(pub [usize; Trouble::ALL.len()]);

impl Happened {
    /// How many met this one.
    #[must_use]
    pub fn of(&self, trouble: Trouble) -> usize {
        self.0[trouble as usize]
    }
}

impl Add for Happened {
    type Output = Happened;

    fn add(mut self, other: Happened) -> Happened {
        for (sum, more) in self.0.iter_mut().zip(other.0) {
            *sum += more;
        }
        self
    }
}

/// A schedule under way.
#[derive(Clone, Debug)]
pub(super) struct Bad {
    schedule: Schedule,
    begin: Instant,
    random: SmallRng,
    happened: Happened,
}

impl Bad {
    pub(super) fn new(schedule: Schedule, seed: u64) -> Bad {
        let random = SmallRng::seed_from_u64(seed ^ 0x6469_736b);
        Bad { schedule, begin: Instant::now(), random, happened: Happened::default() }
    }

    pub(super) fn add(&mut self, trouble: Trouble, lasts: Duration) {
        let from = self.begin.elapsed();
        self.schedule.0.push(Spell { trouble, from, until: Some(from + lasts), slow_max: Duration::ZERO });
    }

    pub(super) fn is_now(&self) -> bool {
        self.schedule.at(self.begin.elapsed()).next().is_some()
    }

    pub(super) fn has_no_space(&self) -> bool {
        self.schedule.at(self.begin.elapsed()).any(|spell| spell.trouble == Trouble::NoSpace)
    }

    pub(super) fn happened(&self) -> Happened {
        self.happened
    }

    fn count(&mut self, trouble: Trouble) {
        self.happened.0[trouble as usize] += 1;
    }

    /// How long a call takes.
    pub(super) fn delay(&mut self, call: Call) -> Option<Duration> {
        let (trouble, wait) = self.schedule.delay(self.begin.elapsed(), call, &mut self.random)?;
        self.count(trouble);
        Some(wait)
    }

    /// The error of a call.
    pub(super) fn error(&mut self, call: Call) -> Option<i32> {
        let now = self.begin.elapsed();
        let once = self.happened.of(Trouble::ErrorOnce) > 0;
        let mut errors = self.schedule.at(now).filter_map(|spell| {
            let error = spell.trouble.error(call)?;
            (spell.trouble != Trouble::ErrorOnce || !once).then_some((spell.trouble, error))
        });
        let (trouble, error) = errors.next()?;
        drop(errors);
        self.count(trouble);
        Some(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(trouble: Trouble, until: Option<u64>) -> Schedule {
        let (from, until) = (Duration::from_millis(100), until.map(Duration::from_millis));
        Schedule(vec![Spell { trouble, from, until, slow_max: Duration::from_millis(50) }])
    }

    #[test]
    fn a_call_hangs_until_its_spell_is_over_and_others_do_not() {
        let hangs = schedule(Trouble::HangingSyncs, Some(400));
        let mut random = SmallRng::seed_from_u64(1);
        let mut delay = |at, what| {
            let call = Call::of(what, Path::new("/data/open-1"), false);
            hangs.delay(Duration::from_millis(at), call, &mut random).map(|(_, wait)| wait.as_millis())
        };

        assert_eq!(delay(99, "sync data"), None);
        assert_eq!(delay(100, "sync data"), Some(300));
        assert_eq!(delay(399, "sync all"), Some(1));
        assert_eq!(delay(400, "sync data"), None);
        assert_eq!(delay(200, "write"), None);
    }

    #[test]
    fn errors_are_those_of_the_trouble() {
        let of = |trouble: Trouble, what, path, grows| trouble.error(Call::of(what, Path::new(path), grows));

        assert_eq!(of(Trouble::NoSpace, "write", "/data/open-1", true), Some(ENOSPC));
        assert_eq!(of(Trouble::NoSpace, "write", "/data/metadata1", false), None);
        assert_eq!(of(Trouble::ReadOnly, "rename", "/data/open-1", false), Some(EROFS));
        assert_eq!(of(Trouble::ReadOnly, "read", "/data/open-1", false), None);
        assert_eq!(of(Trouble::Errors, "read", "/data/open-1", false), Some(EIO));
        assert_eq!(of(Trouble::HangingVotes, "write", "/data/metadata1", false), None);
    }

    #[test]
    fn what_stays_is_drawn_without_an_end() {
        let mut random = SmallRng::seed_from_u64(1);
        let within = Duration::from_secs(10);
        let drawn: Vec<Spell> =
            (0..100).map(|at| Spell::draw(&mut random, Trouble::Slow, within, at < 50)).collect();

        assert!(drawn.iter().take(50).all(|spell| spell.until.is_none()));
        assert!(
            drawn
                .iter()
                .skip(50)
                .all(|spell| spell.until.is_some_and(|end| end > spell.from && end <= within))
        );
    }
}
