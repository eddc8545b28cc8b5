//! Tests whose cases are a text file: what is asked, a line `----`, what is answered, an empty line. A line that begins with
//! `#` is a comment. Whoever knows no Rust can read and add a case, and a decision that changes shows as a changed line:
//! `UPDATE=1` writes what is answered now into the file.

use std::fs;
use std::path::Path;

/// Between what is asked and what is answered.
const SEPARATOR: &str = "----";

/// What became of the cases of a text.
struct Outcome {
    /// The text with the answers that were given.
    text: String,
    cases: usize,
    /// Every case with another answer than expected.
    differences: Vec<String>,
}

/// Asks every case of `testdata/NAME`.
///
/// # Panics
/// An answer is not the expected one, or the file has no cases.
pub(crate) fn run(name: &str, answer: impl FnMut(&str) -> String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let outcome = ask(&text, answer).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(outcome.cases > 0, "{}: no cases", path.display());
    if std::env::var_os("UPDATE").is_some_and(|value| value == "1") {
        fs::write(&path, outcome.text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        return;
    }
    let differences = outcome.differences.join("\n");
    assert!(differences.is_empty(), "{} (UPDATE=1 rewrites it):\n{differences}", path.display());
}

fn ask(text: &str, mut answer: impl FnMut(&str) -> String) -> Result<Outcome, String> {
    let mut outcome = Outcome { text: String::new(), cases: 0, differences: Vec::new() };
    let mut asked = Vec::new();
    let mut asked_at = 0;
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        outcome.text += line;
        outcome.text += "\n";
        if line == SEPARATOR {
            let expected: Vec<&str> =
                lines.by_ref().map(|(_, line)| line).take_while(|line| !line.is_empty()).collect();
            let given = answer(&asked.join("\n"));
            if asked.is_empty() || given.lines().any(str::is_empty) {
                return Err(format!(
                    "line {}: nothing is asked, or a line of the answer is empty",
                    number + 1
                ));
            }
            if !given.lines().eq(expected.iter().copied()) {
                let (asked, expected) = (asked.join("\n"), expected.join("\n"));
                outcome.differences.push(format!(
                    "line {}:\n{asked}\nexpected:\n{expected}\nanswered:\n{}\n",
                    asked_at + 1,
                    given.trim_end()
                ));
            }
            for line in given.lines() {
                outcome.text += line;
                outcome.text += "\n";
            }
            outcome.text += "\n";
            outcome.cases += 1;
            asked.clear();
        } else if line.is_empty() {
            if !asked.is_empty() {
                return Err(format!("line {}: a case without {SEPARATOR}", asked_at + 1));
            }
        } else if !line.starts_with('#') {
            if asked.is_empty() {
                asked_at = number;
            }
            asked.push(line);
        }
    }
    if !asked.is_empty() {
        return Err(format!("line {}: a case without {SEPARATOR}", asked_at + 1));
    }
    outcome.text.truncate(outcome.text.trim_end().len());
    outcome.text += "\n";
    Ok(outcome)
}

mod tests {
    use super::*;

    const TEXT: &str = "# Doubles.\n\ndouble 2\n----\n4\n\n# Twice, with two lines.\ndouble 3\n# here\ndouble 4\n----\n6\n8\n";

    fn doubled(asked: &str) -> String {
        let numbers = asked.lines().filter_map(|line| line.strip_prefix("double ")?.parse::<u64>().ok());
        numbers.map(|number| format!("{}\n", number * 2)).collect()
    }

    #[test]
    fn right_answers_leave_the_text_as_it_is() {
        let outcome = ask(TEXT, doubled).unwrap();

        assert_eq!((outcome.cases, outcome.differences.len()), (2, 0));
        assert_eq!(outcome.text, TEXT);
    }

    #[test]
    fn a_wrong_or_missing_answer_is_told_with_its_line_and_replaced() {
        for wrong in [TEXT.replace("6\n8", "6\n9"), TEXT.replace("6\n8\n", ""), TEXT.replace("8\n", "8\n9\n")]
        {
            let outcome = ask(&wrong, doubled).unwrap();

            assert_eq!(outcome.differences.len(), 1, "{wrong}");
            assert!(outcome.differences[0].starts_with("line 8:\ndouble 3\ndouble 4\n"), "{wrong}");
            assert_eq!(outcome.text, TEXT);
        }
    }

    #[test]
    fn a_text_that_cannot_be_asked_is_an_error() {
        for text in ["double 2\n", "double 2\n\n----\n4\n", "----\n4\n"] {
            assert!(ask(text, doubled).is_err(), "{text}");
        }
        assert!(ask(TEXT, |_| "4\n\n6".to_owned()).is_err());
        assert_eq!(ask("# nothing\n", doubled).unwrap().cases, 0);
    }
}
