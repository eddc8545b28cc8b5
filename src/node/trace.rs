//! Lines on standard error when `LIBDQLITE_TRACE` asks for them, one for each event, in upstream's form; without it nothing
//! is written. The variable is read at every start and recovery. spec: c-api 3.0 "Environment variables".

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{Interest, Subscriber};
use tracing::{Event, Level, Metadata};

use super::error_text::cut;
use crate::host::standard_error;
use crate::types::clock::{SystemWallClock, WallClock};
use crate::types::config::TRACE_LINE_MAX_BYTES;

const VARIABLE: &str = "LIBDQLITE_TRACE";
/// Above every level.
const NOTHING: u8 = u8::MAX;
/// The highest number that is a level: upstream's FATAL.
const HIGHEST: u8 = 5;

/// The lowest level that is written. One for the process, as the variable and standard error are.
static MINIMUM: AtomicU8 = AtomicU8::new(NOTHING);
/// No lock: a child that was forked while it is held would wait for ever.
static INSTALLED: AtomicBool = AtomicBool::new(false);

/// Does what the variable asks for.
pub fn follow_environment() {
    // Where there is no standard error, its number will be that of some file of the host.
    let wanted = std::env::var_os(VARIABLE).filter(|_| standard_error::is_open());
    MINIMUM.store(wanted.as_deref().map_or(NOTHING, minimum), Ordering::Relaxed);
    if wanted.is_some() && !INSTALLED.swap(true, Ordering::AcqRel) {
        // A test or a simulation may have a subscriber of its own, which then stays.
        drop(tracing::subscriber::set_global_default(Lines));
    }
}

/// The level that a value of the variable asks for; numbers that are no level, and other texts, ask for everything.
fn minimum(value: &OsStr) -> u8 {
    let digits = value.as_bytes().trim_ascii_start();
    let end = digits.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(digits.len());
    let number = std::str::from_utf8(&digits[..end]).ok().and_then(|digits| digits.parse().ok());
    number.filter(|number| *number <= HIGHEST).unwrap_or(0)
}

/// The level of an event by upstream's numbers. What other crates tell counts as one lower: it says how, seldom what.
fn rank(metadata: &Metadata<'_>) -> u8 {
    let rank: u8 = match *metadata.level() {
        Level::ERROR => 4,
        Level::WARN => 3,
        Level::INFO => 2,
        Level::DEBUG => 1,
        Level::TRACE => 0,
    };
    let is_own = metadata.target().split("::").next() == Some("dqlite");
    if is_own { rank } else { rank.saturating_sub(1) }
}

/// Writes events as lines.
struct Lines;

impl Subscriber for Lines {
    // The level may change later, so no place in the source is decided for good.
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && rank(metadata) >= MINIMUM.load(Ordering::Relaxed)
    }

    // Never called: no span is enabled.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let thread = rustix::thread::gettid().as_raw_nonzero().get();
        let line = line(event, SystemWallClock.since_epoch(), std::process::id(), thread);
        standard_error::write_line(&line);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

fn line(event: &Event<'_>, now: Duration, process: u32, thread: i32) -> String {
    let metadata = event.metadata();
    let module = metadata.target().rsplit("::").next().unwrap_or_default();
    let (file, at) = (source(metadata.file().unwrap_or_default()), metadata.line().unwrap_or_default());
    let mut text = Text(format!(
        "LIBDQLITE[{process:06}] {} {thread:06} {:<7} {module:<20} {file}:{at:<3}",
        timestamp(now),
        level_name(*metadata.level()),
    ));
    event.record(&mut text);
    one_line(&text.0)
}

/// One event is one line, whatever a value holds.
fn one_line(text: &str) -> String {
    let mut line = text.replace(['\n', '\r'], " ");
    line.truncate(cut(&line, TRACE_LINE_MAX_BYTES - 1).len());
    line.push('\n');
    line
}

/// A source file of this library, or the last two parts of one of another crate, whose folder is the build machine's.
fn source(path: &str) -> &str {
    let Some((folders, _)) = path.rsplit_once('/').filter(|_| path.starts_with('/')) else { return path };
    folders.rfind('/').map_or(path, |at| &path[at + 1..])
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARN",
        Level::INFO => "INFO",
        Level::DEBUG | Level::TRACE => "DEBUG",
    }
}

/// The text of an event: its message, then its fields.
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.0, " {value:?}"),
            name => write!(self.0, " {name}:{value:?}"),
        };
    }
}

/// `YYYY-MM-DDTHH:MM:SS.nnnnnnnnn` in UTC.
fn timestamp(since_epoch: Duration) -> String {
    let seconds = since_epoch.as_secs();
    let (year, month, day) = civil(seconds / 86_400);
    let of_day = seconds % 86_400;
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let nanoseconds = since_epoch.subsec_nanos();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanoseconds:09}")
}

/// Year, month and day of a day since 1970-01-01. Years are counted from March, so that a leap day ends one.
fn civil(days: u64) -> (u64, u64, u64) {
    // From 0000-03-01.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_names_a_level_and_anything_else_asks_for_everything() {
        for (value, expected) in
            [("0", 0), ("1", 1), ("5", 5), ("6", 0), ("-1", 0), ("", 0), ("yes", 0), (" 3x", 3), ("300", 0)]
        {
            assert_eq!(minimum(OsStr::new(value)), expected, "{value}");
        }
    }

    #[test]
    fn a_source_is_named_without_the_folders_of_the_machine_that_built_it() {
        assert_eq!(source("src/raft/engine/mod.rs"), "src/raft/engine/mod.rs");
        assert_eq!(source("/root/registry/openraft/src/core/tick.rs"), "core/tick.rs");
        assert_eq!(source("/tick.rs"), "/tick.rs");
    }

    #[test]
    fn an_event_is_one_line_of_bounded_length() {
        assert_eq!(one_line("a\r\nb"), "a  b\n");
        let long = one_line(&"\u{e4}".repeat(TRACE_LINE_MAX_BYTES));
        assert!(long.len() <= TRACE_LINE_MAX_BYTES && long.ends_with("\u{e4}\n"), "{}", long.len());
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000000007"),
            (951_782_399, "2000-02-28T23:59:59.000000007"),
            (951_782_400, "2000-02-29T00:00:00.000000007"),
            (1_700_000_000, "2023-11-14T22:13:20.000000007"),
            (4_107_542_400, "2100-03-01T00:00:00.000000007"),
        ] {
            assert_eq!(timestamp(Duration::new(seconds, 7)), expected);
        }
    }
}
