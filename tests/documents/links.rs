//! Links between documents, and the list of them.

use std::path::Path;

use crate::blocks::{anchors, documents, root, text_of};

/// Targets of the links of a text outside of code.
fn links(text: &str) -> Vec<String> {
    let mut prose = String::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            // Code between backquotes is the odd parts.
            prose.extend(line.split('`').step_by(2));
            prose.push('\n');
        }
    }
    let starts = prose.match_indices("](").map(|(at, found)| at + found.len());
    starts.filter_map(|at| prose[at..].split_once(')')).map(|(target, _)| target.to_owned()).collect()
}

#[test]
fn every_relative_link_leads_somewhere() {
    let mut count = 0;
    for document in documents() {
        let path = root().join(&document);
        for link in links(&text_of(&document)) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            count += 1;
            let (file, heading) =
                link.split_once('#').map_or((&link[..], None), |(file, heading)| (file, Some(heading)));
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            assert!(target.exists(), "{document}: {link}");
            if let Some(heading) = heading {
                assert!(anchors(&target).contains(heading), "{document}: {link}: {:?}", anchors(&target));
            }
        }
    }
    assert!(count >= 10, "{count} links");
}

#[test]
fn the_index_lists_every_document() {
    let listed = links(&text_of("docs/index.md"));
    for document in documents() {
        let Some(name) = document.strip_prefix("docs/").filter(|name| *name != "index.md") else { continue };
        assert!(listed.iter().any(|link| link == name), "docs/index.md does not list {name}");
    }
    assert!(Path::new(&root()).join("docs/index.md").exists());
}

#[test]
fn every_file_that_a_document_names_is_there() {
    let is_file = |name: &str| {
        let known = [".rs", ".c", ".cc", ".sh", ".txt", ".toml"].iter().any(|end| name.ends_with(end));
        known && name.contains('/') && !name.contains([' ', '*', '$'])
    };
    let mut count = 0;
    for document in documents().into_iter().filter(|document| document != "CHANGELOG.md") {
        let text = text_of(&document);
        let names =
            text.lines().flat_map(|line| line.split('`').skip(1).step_by(2)).filter(|name| is_file(name));
        for name in names {
            count += 1;
            let places = [root().join(name), root().join("src").join(name)];
            assert!(places.iter().any(|place| place.exists()), "{document}: {name}");
        }
    }
    assert!(count >= 10, "{count} files");
}

#[test]
fn links_in_code_are_none() {
    let text = "[a](one.md) `[b](two.md)`\n```\n[c](three.md)\n```\n[d](four.md#x)";
    assert_eq!(links(text), ["one.md", "four.md#x"]);
}
