//! Bytes of upstream in both directions. spec: client-protocol 18.

use bytes::Bytes;

use super::header::{HEADER_BYTES, MessageHeader};
use super::request::{DecodeError, Parameters, Request, Value};
use super::response;
use super::rows::{ColumnValue, Marker, RowsWriter};
use crate::types::{Configuration, NodeId, Role, Server};

fn golden(example: &str, direction: &str) -> Vec<u8> {
    let line = include_str!("golden.txt")
        .lines()
        .find(|line| line.starts_with(&format!("{example} {direction} ")))
        .unwrap_or_else(|| panic!("example {example} {direction}"));
    let hex = line.split(' ').nth(2).unwrap();
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn decode(message: &[u8]) -> Result<Request, DecodeError> {
    let header = MessageHeader::read(message);
    assert_eq!(header.body_bytes() as usize, message.len() - HEADER_BYTES);
    Request::decode(header.kind, header.schema, &Bytes::copy_from_slice(&message[HEADER_BYTES..]))
}

// conformance: client-protocol M1
#[test]
fn every_request_decodes_and_encodes_to_the_same_bytes() {
    let mut count = 0;
    for line in include_str!("golden.txt").lines().filter(|line| line.contains(" request ")) {
        let example = line.split(' ').next().unwrap();
        let message = golden(example, "request");
        if example == "28" {
            let error = decode(&message).unwrap_err();
            assert_eq!(error, DecodeError::Failure { code: 1005, message: "unrecognized request type" });
            continue;
        }
        let request = decode(&message).unwrap();
        let encoded = request.encode().unwrap();
        if matches!(request, Request::Prepare { schema: 1, .. }) {
            assert_eq!(encoded[5], 1);
        }
        assert_eq!(encoded, message, "example {example}");
        count += 1;
    }
    assert!(count >= 27, "{count} requests");
}

#[test]
fn parameters_have_the_specified_bytes() {
    let one = decode(&golden("7", "request")).unwrap();
    let Request::Exec { parameters, .. } = one else { panic!("{one:?}") };
    let values = [Value::Text(Bytes::from_static(b"hello"))];
    assert_eq!(parameters.decode().unwrap(), values);
    assert_eq!(Parameters::encode(&values), parameters);

    let schema_one = decode(&golden("27", "request")).unwrap();
    let Request::Query { parameters, .. } = schema_one else { panic!("{schema_one:?}") };
    assert_eq!(parameters.decode().unwrap(), [Value::Integer(5)]);
}

// conformance: client-protocol E5, E6
// conformance: client-protocol X12 (better: upstream takes it for some blob)
#[test]
fn many_parameters_go_by_schema_one_and_bad_ones_are_errors() {
    let values: Vec<Value> = (0..300).map(Value::Integer).collect();
    let tuple = Parameters::encode(&values);
    assert_eq!((tuple.schema, tuple.decode().unwrap()), (1, values));

    for bad in [
        &[1u8, 9, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0][..],
        &[1, 4, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255],
        &[20, 1, 0, 0, 0, 0, 0, 0],
        &[1, 3, 0, 0, 0, 0, 0, 0, 65, 65, 65, 65, 65, 65, 65, 65],
        &[1, 1, 0, 0, 0, 0, 0, 0, 1],
        &[1, 0, 0, 0, 0, 0, 0, 0],
    ] {
        let tuple = Parameters { schema: 0, bytes: Bytes::copy_from_slice(bad) };
        assert!(tuple.decode().is_err(), "{bad:?}");
    }
    let huge = Parameters { schema: 1, bytes: Bytes::from_static(&[255, 255, 255, 255, 1, 1, 1, 1]) };
    assert!(huge.decode().is_err());
}

// conformance: client-protocol C1, C2, H1, H2, M9
#[test]
fn responses_have_the_specified_bytes() {
    let address = b"127.0.0.1:29300";
    let configuration =
        Configuration::new(vec![Server { id: NodeId(1), address: address.to_vec(), role: Role::Voter }])
            .unwrap();
    for (example, message) in [
        ("1", response::server(1, address)),
        ("2", response::server_legacy(address)),
        ("3", response::welcome(15000)),
        ("4", response::db(0)),
        ("5", response::result(0, 0)),
        ("6", response::stmt(0, 0, 1, 0)),
        ("7", response::result(1, 1)),
        ("12", response::empty()),
        ("14", response::failure(1555, b"UNIQUE constraint failed: t.id")),
        ("15", response::failure(12, b"no database opened")),
        ("16", response::servers(&configuration, 1)),
        ("17", response::servers(&configuration, 0)),
        ("18", response::metadata(42, 0)),
        ("21", response::failure(1, b"server ID already in use")),
        ("26", response::stmt(1, 0, 1, 10)),
    ] {
        assert_eq!(message, golden(example, "response"), "example {example}");
    }
}

fn rows(names: &[&str], marker: Marker, write: impl FnOnce(&mut RowsWriter)) -> Vec<u8> {
    let mut writer = RowsWriter::new(names.iter().map(|name| name.as_bytes()));
    write(&mut writer);
    writer.finish(marker).unwrap()
}

// conformance: client-protocol Q3
#[test]
fn rows_have_the_specified_bytes() {
    let two = rows(&["id", "s"], Marker::Done, |writer| {
        writer.begin_row(2);
        writer.push(0, Some(b"INTEGER"), &ColumnValue::Integer(1));
        writer.push(1, Some(b"TEXT"), &ColumnValue::Text(b"hello"));
    });
    assert_eq!(two, golden("9", "response"));

    let six = rows(&["a", "b", "c", "d", "e", "f"], Marker::Done, |writer| {
        writer.begin_row(6);
        writer.push(0, Some(b"DATETIME"), &ColumnValue::Integer(1_600_000_000));
        writer.push(1, Some(b"timestamp"), &ColumnValue::Text(b"2020-09-13"));
        writer.push(2, Some(b"Boolean"), &ColumnValue::Integer(1));
        writer.push(3, None, &ColumnValue::Float(0.5));
        writer.push(4, None, &ColumnValue::Blob(&[0, 255]));
        writer.push(5, None, &ColumnValue::Null);
    });
    assert_eq!(six, golden("10", "response"));

    assert_eq!(rows(&["s"], Marker::Done, |_| {}), golden("11", "response"));
    assert_eq!(rows(&[], Marker::Done, |_| {}), golden("29", "response"));
}

// conformance: client-protocol Q1
// conformance: client-protocol X5 (better: upstream aborts)
#[test]
fn type_codes_follow_the_declared_type_and_the_storage_class() {
    use super::rows::type_code;
    let values = [
        ColumnValue::Integer(1),
        ColumnValue::Float(1.0),
        ColumnValue::Text(b"x"),
        ColumnValue::Blob(b"x"),
        ColumnValue::Null,
    ];
    let codes = |declared: Option<&[u8]>| values.map(|value| type_code(declared, &value));
    for dates in [&b"DATETIME"[..], b"date", b"TimeStamp"] {
        assert_eq!(codes(Some(dates)), [9, 2, 10, 4, 10]);
    }
    assert_eq!(codes(Some(b"BOOLEAN")), [11, 2, 3, 4, 11]);
    for other in [None, Some(&b"DATETIME(3)"[..]), Some(b"BOOL")] {
        assert_eq!(codes(other), [1, 2, 3, 4, 5]);
    }
}

// conformance: client-protocol M2, M3, M4, M5, M6
#[test]
fn malformed_requests_get_what_the_specification_recommends() {
    let word = Bytes::from_static(&[0; 8]);
    let text = Bytes::from_static(b"\0\0\0\0\0\0\0\0abcdefgh");
    for kind in [0, 1, 3, 7, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19] {
        assert_eq!(
            Request::decode(kind, 1, &word).unwrap_err(),
            DecodeError::Failure { code: 1005, message: "unrecognized schema version" }
        );
    }
    for kind in [4, 5, 6, 8, 9] {
        assert_eq!(
            Request::decode(kind, 2, &word).unwrap_err(),
            DecodeError::Failure { code: 1, message: "unrecognized schema version" }
        );
    }
    assert!(matches!(Request::decode(3, 0, &word), Err(DecodeError::Close(3, _))));
    assert!(matches!(Request::decode(8, 0, &text), Err(DecodeError::Close(8, _))));
    assert!(matches!(Request::decode(2, 0, &word), Err(DecodeError::Failure { code: 1005, .. })));
}

mod properties {
    use super::*;
    use proptest::prelude::*;

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            any::<i64>().prop_map(Value::Integer),
            any::<f64>().prop_filter("NaN is not equal", |float| !float.is_nan()).prop_map(Value::Float),
            "[^\0]{0,40}".prop_map(|text| Value::Text(text.into())),
            proptest::collection::vec(any::<u8>(), 0..40).prop_map(|blob| Value::Blob(blob.into())),
            Just(Value::Null),
        ]
    }

    proptest! {
        #[test]
        fn parameters_come_back(values in proptest::collection::vec(value(), 1..300)) {
            prop_assert_eq!(Parameters::encode(&values).decode().unwrap(), values);
        }

        #[test]
        fn any_bytes_do_not_panic(
            kind in 0u8..24,
            schema in 0u8..3,
            body in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            if let Ok(request) = Request::decode(kind, schema, &body.into()) {
                if let Request::Exec { parameters, .. }
                | Request::Query { parameters, .. }
                | Request::ExecSql { parameters, .. }
                | Request::QuerySql { parameters, .. } = &request
                {
                    let _ = parameters.decode();
                }
                prop_assert!(request.encode().is_some());
            }
        }
    }
}
