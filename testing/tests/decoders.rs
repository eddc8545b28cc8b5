//! Random and mutated bytes into every decoder: the short, seeded version of `make fuzz`.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use dqlite_testing::targets::TARGETS;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// Inputs per decoder.
const INPUTS: usize = 200_000;

/// Numbers that decoders stumble over.
const EDGES: [u64; 9] =
    [0, 1, 7, 8, 0xff, 0xffff_ffff, 0x7fff_ffff_ffff_ffff, 0x8000_0000_0000_0000, u64::MAX];

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).unwrap()).collect()
}

/// Messages of upstream and files that it wrote.
fn seeds() -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let golden = std::fs::read_to_string(root.join("src/protocol/golden.txt")).unwrap();
    let mut seeds = Vec::new();
    for line in golden.lines().filter(|line| !line.starts_with('#')) {
        let message = unhex(line.split(' ').next_back().unwrap());
        seeds.push(message[8..].to_vec());
        // As the request target wants it: kind, schema, body.
        seeds.push([&message[4..6], &message[8..]].concat());
    }
    seeds.push(b"v1\n127.0.0.1:19201\n3297041220608546238\n".to_vec());
    seeds.push(b"127.0.0.1:19201\n3297041220608546238\nvoter\nb\n2\nspare\n".to_vec());
    for folder in ["single", "snapshot-raw", "recovered", "installed"] {
        let folder = root.join("testdata/fixtures/datadir-1.18.6").join(folder);
        for entry in std::fs::read_dir(folder).unwrap() {
            let content = std::fs::read(entry.unwrap().path()).unwrap();
            // A segment's batch starts behind its format word, and the entries behind the batch's header.
            for skip in [0, 8, 40] {
                seeds.push(content[skip.min(content.len())..content.len().min(64 * 1024)].to_vec());
            }
        }
    }
    seeds
}

fn mutate(bytes: &mut Vec<u8>, random: &mut SmallRng) {
    for _ in 0..random.random_range(0..6) {
        if bytes.is_empty() {
            break;
        }
        let at = random.random_range(0..bytes.len());
        match random.random_range(0..6) {
            0 => bytes[at] ^= 1 << random.random_range(0..8),
            1 => bytes.truncate(at),
            2 => {
                let edge = EDGES[random.random_range(0..EDGES.len())].to_le_bytes();
                let at = at & !7;
                let end = bytes.len().min(at + 8);
                bytes[at..end].copy_from_slice(&edge[..end - at]);
            }
            3 => bytes.insert(at, random.random()),
            4 => {
                let piece = bytes[at..bytes.len().min(at + 64)].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => bytes[at] = random.random(),
        }
    }
}

#[test]
fn any_bytes_are_refused_or_decoded_and_never_more() {
    let seeds = seeds();
    let mut random = SmallRng::seed_from_u64(1);
    for (name, target) in TARGETS {
        let mut bytes = 0;
        for _ in 0..INPUTS {
            let mut input = if random.random_range(0..8) == 0 {
                let length = random.random_range(0..200);
                (0..length).map(|_| random.random()).collect()
            } else {
                let seed: &Vec<u8> = &seeds[random.random_range(0..seeds.len())];
                seed[..seed.len().min(if random.random_range(0..20) == 0 { usize::MAX } else { 2048 })]
                    .to_vec()
            };
            mutate(&mut input, &mut random);
            bytes += input.len();
            target(&input);
        }
        println!("{name}: {INPUTS} inputs, {bytes} bytes");
    }
}
