//! No request waits for ever: whatever `executor/` and `gateway/` wait for is in one of these tables, with the reason why it ends.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

#[path = "sources/code.rs"]
mod code;
mod sources;

use code::code_of;

const FOLDERS: &[&str] = &["src/executor/", "src/gateway/"];

/// Functions of these folders that anybody there may wait for. Each looks at what has ended, or waits for nothing but others of
/// the table.
const OWN: &[(&str, &str)] = &[
    ("race", "looks at what has ended, first"),
    ("race_to", "looks at what has ended, last"),
    (
        "permit",
        "a race, but for what gives something back: that needs a permit alone, and whoever has one gives it back",
    ),
    ("enter", "a permit, then SQLite, whose progress handler looks at what has ended"),
    ("run_inside", "inside SQLite, as above"),
    ("grant", "turn and room, each in a race"),
    ("prove", "a race"),
    ("settle", "a race, then `prove`"),
    ("conclude", "`settle`"),
    ("rest", "`enter`, which gives something back"),
    ("keep", "others run once"),
    ("compile", "`enter`"),
    ("run_one", "`grant`, `enter`"),
    ("run_all", "bodies, each of which looks at what has ended"),
    ("fill", "`enter`"),
    ("first_fill", "`grant`, `fill`"),
    ("further_fill", "`enter`"),
    ("advance", "fills, each of which looks at what has ended"),
    ("open", "a permit and SQLite"),
    ("prepare", "a request"),
    ("exec", "a request"),
    ("exec_sql", "a request"),
    ("next_frame", "a part of a request"),
    ("end_query", "the end of a request"),
    ("send", "looks at what has ended whenever the socket takes nothing"),
    ("send_rows", "frames and `send`"),
    ("rows", "a query"),
    ("query", "a query"),
    ("dump", "`send_pages`"),
    ("send_pages", "`send`"),
    ("simple", "a request"),
    ("answer_attended", "a request"),
    ("next_event", "ends with the stream and with the node"),
    ("run", "requests, as long as there is a client"),
];

/// Other waits: the file, what is waited for, how often it is there, and why that ends.
const ELSEWHERE: &[(&str, &str, usize, &str)] = &[
    ("src/executor/body.rs", "acquire", 1, "a permit for what gives something back, whatever has ended"),
    ("src/executor/mod.rs", "acquire", 1, "the same for a connection that is closed, in a task of its own"),
    ("src/executor/mod.rs", "yield_now", 1, "it only lets others run"),
    ("src/executor/permits.rs", "granted", 1, "dropped by a race if it is in one"),
    (
        "src/executor/request.rs",
        "when_applied",
        1,
        "in the race of `settle`; answered by apply and by the end of the epoch",
    ),
    (
        "src/executor/request.rs",
        "first",
        2,
        "the same: it was discarded with the version that was waited for, or with the one that was refused",
    ),
    ("src/executor/turn.rs", "select!", 1, "dropped by the race that it is in"),
    ("src/executor/sqlite/ended.rs", "poll_fn", 2, "the races themselves"),
    (
        "src/executor/sqlite/ended.rs",
        "run",
        1,
        "SQLite on a thread of its own, which looks at what has ended",
    ),
    ("src/gateway/attendant.rs", "select!", 2, "the attendant itself, which goes with its connection"),
    ("src/gateway/attendant.rs", "wait_for", 1, "the same"),
    ("src/gateway/connection.rs", "select!", 1, "the handshake beside the stop of the node"),
    (
        "src/gateway/connection.rs",
        "poll_fn",
        3,
        "`next_event`, `answer_attended`, `send`: what they poll looks at what has ended",
    ),
    ("src/gateway/reader.rs", "poll_fn", 1, "the handshake"),
    ("src/gateway/unproved.rs", "select!", 1, "a connection's first request, at most a second"),
    ("src/gateway/unproved.rs", "handshake", 1, "in that"),
    ("src/gateway/unproved.rs", "poll_fn", 1, "the same"),
    ("src/gateway/membership.rs", "add", 1, "in a race of `simple`"),
    ("src/gateway/membership.rs", "assign", 2, "the same"),
    ("src/gateway/membership.rs", "remove", 1, "the same"),
    ("src/gateway/membership.rs", "transfer", 1, "the same"),
];

/// Code of the folders without their tests.
fn code() -> Vec<(String, String)> {
    let is_ours =
        |path: &str| FOLDERS.iter().any(|folder| path.starts_with(folder)) && !path.ends_with("_tests.rs");
    let without_tests = |text: &str| {
        let code = code_of(text);
        code.find("#[cfg(test)]\nmod ").map_or_else(|| code.clone(), |at| code[..at].to_owned())
    };
    let ours = sources::sources().into_iter().filter(|(path, _)| is_ours(path));
    ours.map(|(path, text)| (path, without_tests(&text))).collect()
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// The last name of an expression: a function, without its arguments, or a variable. Empty if it ends otherwise.
fn last_name(expression: &str) -> &str {
    let mut expression = expression.trim_end().trim_end_matches('?').trim_end();
    if expression.ends_with(')') {
        let mut depth = 0;
        let open = expression.char_indices().rev().find(|(_, character)| {
            depth += match character {
                ')' => 1,
                '(' => -1,
                _ => 0,
            };
            depth == 0
        });
        expression = &expression[..open.map_or(0, |(at, _)| at)];
    }
    let start = expression.rfind(|character| !is_word(character)).map_or(0, |at| at + 1);
    &expression[start..]
}

/// The expression that a variable was last set to before this point, if it was by `let` with its name alone.
fn set_to<'a>(before: &'a str, name: &str) -> Option<&'a str> {
    let forms = [format!("let {name} = "), format!("let mut {name} = ")];
    let starts = forms.iter().flat_map(|form| before.match_indices(form.as_str()));
    // One that is not ended is set to what is waited for.
    let expressions = starts.filter_map(|(at, form)| {
        let expression = &before[at + form.len()..];
        Some((at, &expression[..end_of(expression)?]))
    });
    expressions.max_by_key(|(at, _)| *at).map(|(_, expression)| expression)
}

/// Where the semicolon of an expression is.
fn end_of(expression: &str) -> Option<usize> {
    let mut depth = 0;
    expression.find(|character| {
        depth += match character {
            '(' | '{' | '[' => 1,
            ')' | '}' | ']' => -1,
            _ => 0,
        };
        character == ';' && depth == 0
    })
}

/// What is waited for in a text: functions, and variables that no function was called for.
fn waits(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices(".await") {
        let before = &code[..at];
        let name = last_name(before);
        let is_variable = !before.trim_end().ends_with(')');
        let called = set_to(before, name).filter(|_| is_variable).filter(|set_to| set_to.ends_with(')'));
        found.push(called.map_or(name, last_name).to_owned());
    }
    found.extend(code.match_indices("select! {").map(|_| "select!".to_owned()));
    found
}

#[test]
fn whatever_is_waited_for_is_known_to_end() {
    let mut complaints = Vec::new();
    let (mut own, mut elsewhere) = (BTreeSet::new(), vec![0; ELSEWHERE.len()]);
    for (path, code) in code() {
        for name in waits(&code) {
            if let Some(place) =
                ELSEWHERE.iter().position(|(file, known, ..)| (*file, *known) == (&path, &name))
            {
                elsewhere[place] += 1;
            } else if OWN.iter().any(|(known, _)| *known == name) {
                own.insert(name);
            } else {
                complaints.push(format!("{path}: nobody says why `{name}` ends"));
            }
        }
    }
    for ((file, name, count, _), found) in ELSEWHERE.iter().zip(elsewhere) {
        if *count != found {
            complaints.push(format!("{file}: `{name}` is waited for {found} times, not {count}"));
        }
    }
    complaints.extend(
        OWN.iter()
            .filter(|(name, _)| !own.contains(*name))
            .map(|(name, _)| format!("nobody waits for `{name}`")),
    );
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn functions_that_anybody_may_wait_for_are_of_these_folders() {
    let code: String = code().into_iter().map(|(_, code)| code).collect();
    for (name, reason) in OWN {
        let is_there = ["(", "<"].iter().any(|next| code.contains(&format!("async fn {name}{next}")));
        assert!(is_there, "`{name}` is no function of these folders");
        assert!(!reason.is_empty());
    }
}

#[test]
fn the_reader_of_waits_sees_calls_variables_and_what_they_were_set_to() {
    let code = "a.b(c(1), d).await?; let e = f.g(|| { h(); 1 }); let e = e.await; let mut i = { j };\n i\n .await; let k = l; k.m.await;\
                tokio::select! { }";

    assert_eq!(waits(code), ["b", "g", "i", "m", "select!"]);
}
