//! A client's side of the protocol: requests sent whole or in pieces, alone or several at once, answers read at any pace, and
//! an end at any point.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use dqlite::protocol::decode;
use dqlite::protocol::request::{Request, Value};
use dqlite::protocol::response;
use dqlite::protocol::rows::Marker;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, split};
use tokio::time::{sleep, timeout};

use crate::stream::{ClientEnd, ClientFate};

/// What came for a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// ROWS.
    Rows {
        /// Those that came.
        rows: Vec<Vec<Value>>,
        /// Whether the last message came; else an INTERRUPT cut them off.
        complete: bool,
    },
    /// RESULT.
    Result {
        /// Row id.
        rowid: i64,
        /// Changes.
        changes: u64,
    },
    /// STMT.
    Statement {
        /// Its id.
        id: u32,
    },
    /// FAILURE.
    Failure {
        /// Its code.
        code: u64,
        /// Its text.
        text: String,
        /// Rows before it.
        rows: Vec<Vec<Value>>,
    },
    /// Any other.
    Other(u8),
    /// None, or not all of it.
    Nothing {
        /// Rows that came.
        rows: Vec<Vec<Value>>,
    },
}

/// How a client behaves while it asks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    /// Bytes sent at once, and the pause behind them.
    pub pieces: Option<(usize, Duration)>,
    /// Pause before each message is read.
    pub slowness: Duration,
    /// Pause before the first is.
    pub stall: Duration,
    /// When it goes.
    pub leaving: Leaving,
}

/// When a client goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Leaving {
    /// It stays.
    #[default]
    Never,
    /// When so many bytes are sent.
    Sent(usize),
    /// When so many messages have come.
    Received(usize),
    /// After this time.
    After(Duration),
    /// It sends no more, but reads what comes.
    HalfClosed,
    /// When the node polls its connection for the so manieth time.
    Polled(u32),
}

/// A connection behind its handshake.
#[derive(Debug)]
pub struct Wire {
    reading: ReadHalf<DuplexStream>,
    writing: WriteHalf<DuplexStream>,
    received: BytesMut,
    fate: ClientFate,
}

/// What an exchange came to.
#[derive(Debug, Default)]
pub struct Exchange {
    /// One answer for each request.
    pub answers: Vec<Answer>,
    /// Requests of which every byte was sent.
    pub sent: usize,
    /// Messages that came.
    pub messages: usize,
    /// The connection is over.
    pub ended: bool,
    /// Nothing came for as long as the client waits.
    pub timed_out: bool,
}

/// The longest a client waits.
pub const PATIENCE: Duration = Duration::from_secs(20);

impl Wire {
    /// Sends the handshake.
    pub async fn new(end: ClientEnd) -> Option<Wire> {
        let (reading, mut writing) = split(end.stream);
        writing.write_all(&1u64.to_le_bytes()).await.ok()?;
        Some(Wire { reading, writing, received: BytesMut::new(), fate: end.fate })
    }

    /// Closes it as if its machine had reset it: what was sent and not read is lost.
    pub fn reset(self) {
        self.fate.break_now();
    }

    /// Sends requests and reads their answers.
    pub async fn exchange(&mut self, requests: &[Request], manner: Manner) -> Exchange {
        let encoded: Vec<Vec<u8>> = requests.iter().filter_map(Request::encode).collect();
        let ends: Vec<usize> = encoded
            .iter()
            .scan(0, |end, message| {
                *end += message.len();
                Some(*end)
            })
            .collect();
        let mut exchange = Exchange::default();
        let mut sent = 0;
        if let Leaving::Polled(polls) = manner.leaving {
            self.fate.break_after(polls);
        }
        let patience = match manner.leaving {
            Leaving::After(time) => time,
            _ => PATIENCE + manner.stall,
        };
        let bytes = encoded.concat();
        let most = match manner.leaving {
            Leaving::Sent(most) => most.min(bytes.len()),
            _ => bytes.len(),
        };
        let sending = send(&mut self.writing, &bytes[..most], manner, &mut sent);
        let mut receiver = Receiver { reading: &mut self.reading, received: &mut self.received };
        let receiving = async {
            match manner.leaving {
                Leaving::Sent(_) => {}
                _ => receiver.answers(requests, manner, &mut exchange).await,
            }
        };
        let both = async { tokio::join!(sending, receiving) };
        let timed_out = timeout(patience, both).await.is_err();
        exchange.timed_out = timed_out && !matches!(manner.leaving, Leaving::After(_));
        exchange.ended |= timed_out || !matches!(manner.leaving, Leaving::Never);
        exchange.sent = ends.iter().filter(|end| **end <= sent).count();
        while exchange.answers.len() < requests.len() {
            exchange.answers.push(Answer::Nothing { rows: Vec::new() });
        }
        exchange
    }
}

async fn send(writing: &mut WriteHalf<DuplexStream>, bytes: &[u8], manner: Manner, sent: &mut usize) {
    let (size, pause) = manner.pieces.unwrap_or((bytes.len().max(1), Duration::ZERO));
    for piece in bytes.chunks(size) {
        // What is handed to the stream may arrive, whole or not.
        *sent += piece.len();
        if writing.write_all(piece).await.is_err() {
            return;
        }
        if !pause.is_zero() {
            sleep(pause).await;
        }
    }
    if manner.leaving == Leaving::HalfClosed {
        // The node may have closed it.
        let _ = writing.shutdown().await;
    }
}

struct Receiver<'a> {
    reading: &'a mut ReadHalf<DuplexStream>,
    received: &'a mut BytesMut,
}

impl Receiver<'_> {
    /// The next message; None if the connection ends.
    async fn message(&mut self) -> Option<(u8, Bytes)> {
        loop {
            if let Some(header) = self.received.first_chunk::<8>() {
                let words = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
                let (kind, length) = (header[4], words as usize * 8);
                if self.received.len() >= 8 + length {
                    self.received.advance(8);
                    return Some((kind, self.received.split_to(length).freeze()));
                }
            }
            if self.reading.read_buf(self.received).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    async fn answers(&mut self, requests: &[Request], manner: Manner, exchange: &mut Exchange) {
        let mut ahead = None;
        sleep(manner.stall).await;
        for (position, request) in requests.iter().enumerate() {
            let is_query = matches!(request, Request::Query { .. } | Request::QuerySql { .. });
            let interrupted = matches!(requests.get(position + 1), Some(Request::Interrupt { .. }));
            exchange.answers.push(Answer::Nothing { rows: Vec::new() });
            let Some(answer) = exchange.answers.last_mut() else { return };
            loop {
                if manner.leaving == Leaving::Received(exchange.messages) {
                    return;
                }
                let message = match ahead.take() {
                    Some(message) => message,
                    None => {
                        if !manner.slowness.is_zero() {
                            sleep(manner.slowness).await;
                        }
                        let Some(message) = self.message().await else {
                            exchange.ended = true;
                            return;
                        };
                        exchange.messages += 1;
                        message
                    }
                };
                if is_query && interrupted && message.0 == response::Kind::Empty as u8 {
                    let rows = rows_of(answer);
                    *answer = Answer::Rows { rows, complete: false };
                    ahead = Some(message);
                    break;
                }
                if add(answer, message) {
                    break;
                }
            }
        }
    }
}

fn rows_of(answer: &mut Answer) -> Vec<Vec<Value>> {
    match answer {
        Answer::Nothing { rows } | Answer::Rows { rows, .. } => std::mem::take(rows),
        _ => Vec::new(),
    }
}

/// Adds a message to an answer: whether that is complete.
fn add(answer: &mut Answer, (kind, body): (u8, Bytes)) -> bool {
    let mut rows = rows_of(answer);
    let word = |at: usize| {
        body.get(at * 8..at * 8 + 8).and_then(|word| word.try_into().ok()).map_or(0, u64::from_le_bytes)
    };
    *answer = match kind {
        0 => match response::decode_failure(&body) {
            Ok((code, text)) => {
                let text = String::from_utf8_lossy(&text).into_owned();
                Answer::Failure { code, text, rows }
            }
            Err(_) => Answer::Other(kind),
        },
        5 => Answer::Statement { id: (word(0) >> 32) as u32 },
        6 => Answer::Result { rowid: word(0).cast_signed(), changes: word(1) },
        7 => match decode::rows(&body) {
            Ok(more) => {
                rows.extend(more.rows);
                if more.marker == Marker::Part {
                    *answer = Answer::Nothing { rows };
                    return false;
                }
                Answer::Rows { rows, complete: true }
            }
            Err(_) => Answer::Other(kind),
        },
        _ => Answer::Other(kind),
    };
    true
}
