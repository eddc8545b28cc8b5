//! A network in one process: streams between addresses with delays, connections that break, partitions in one or both
//! directions, nodes that stand still, and nodes that crash. Everything random follows from one seed.
//!
//! Inside a connection bytes keep their order, as TCP has it; what is late or lost or comes twice does so because a
//! connection broke and another was made.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use dqlite::transport::dial::{Dial, Stream};
use futures_util::future::BoxFuture;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::stream::{ClientEnd, Fate, ServedStream, connection};

/// Bytes of a connection that nobody has read, each way.
const BUFFER_BYTES: usize = 256 * 1024;
/// Bytes that travel together.
const CHUNK_BYTES: usize = 16 * 1024;
/// How long a dial to a silent address takes to fail.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// How fast and how reliable the network is.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Shortest delay of a chunk.
    pub delay_min: Duration,
    /// Longest usual delay.
    pub delay_max: Duration,
    /// Chunks of 10000 that take much longer.
    pub slow_per_10000: u32,
    /// Chunks of 10000 at which the connection breaks, what was under way lost.
    pub break_per_10000: u32,
}

/// Good weather.
pub const CALM: Weather = Weather {
    delay_min: Duration::from_micros(50),
    delay_max: Duration::from_micros(500),
    slow_per_10000: 0,
    break_per_10000: 0,
};

/// Where clients come in directly.
#[derive(Debug)]
struct Door {
    arrivals: mpsc::UnboundedSender<ServedStream>,
    connections: Vec<Weak<Fate>>,
}

#[derive(Debug)]
struct State {
    random: SmallRng,
    weather: Weather,
    listeners: BTreeMap<Vec<u8>, mpsc::UnboundedSender<DuplexStream>>,
    /// The same for clients without a network in between, and their connections.
    doors: BTreeMap<Vec<u8>, Door>,
    /// Directions in which nothing passes.
    blocked: BTreeSet<(Vec<u8>, Vec<u8>)>,
    /// Addresses that stand still.
    paused: BTreeSet<Vec<u8>>,
    /// Crashes of each address so far: connections of an earlier life are dead.
    lives: BTreeMap<Vec<u8>, u64>,
    /// Bytes that passed, folded.
    digest: u64,
}

/// The network; clones are the same one.
#[derive(Clone, Debug)]
pub struct Network {
    state: Arc<Mutex<State>>,
    changed: watch::Sender<u64>,
}

impl Network {
    /// A network in good weather.
    #[must_use]
    pub fn new(seed: u64) -> Network {
        let state = State {
            random: SmallRng::seed_from_u64(seed ^ 0x6e65_7477_6f72_6b00),
            weather: CALM,
            listeners: BTreeMap::new(),
            doors: BTreeMap::new(),
            blocked: BTreeSet::new(),
            paused: BTreeSet::new(),
            lives: BTreeMap::new(),
            digest: 0,
        };
        Network { state: Arc::new(Mutex::new(state)), changed: watch::channel(0).0 }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.send_modify(|count| *count += 1);
    }

    /// Sets the weather.
    pub fn set_weather(&self, weather: Weather) {
        self.change(|state| state.weather = weather);
    }

    /// Nothing passes from one address to the other.
    pub fn block(&self, from: &[u8], to: &[u8]) {
        self.change(|state| {
            state.blocked.insert((from.to_vec(), to.to_vec()));
        });
    }

    /// Everything passes everywhere, and nobody stands still.
    pub fn heal(&self) {
        self.change(|state| {
            state.blocked.clear();
            state.paused.clear();
        });
    }

    /// Nothing comes from or to an address until `resume`.
    pub fn pause(&self, address: &[u8]) {
        self.change(|state| {
            state.paused.insert(address.to_vec());
        });
    }

    /// Ends a pause.
    pub fn resume(&self, address: &[u8]) {
        self.change(|state| {
            state.paused.remove(address);
        });
    }

    /// Breaks all connections of an address; it listens no more.
    pub fn crash(&self, address: &[u8]) {
        self.change(|state| {
            state.listeners.remove(address);
            if let Some(door) = state.doors.remove(address) {
                door.connections.iter().filter_map(Weak::upgrade).for_each(|fate| fate.break_now());
            }
            *state.lives.entry(address.to_vec()).or_default() += 1;
        });
    }

    /// Digest of everything that passed.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.lock().digest
    }

    /// Streams that others dial at this address.
    #[must_use]
    pub fn listen(&self, address: &[u8]) -> mpsc::UnboundedReceiver<DuplexStream> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.change(|state| {
            state.listeners.insert(address.to_vec(), sender);
        });
        receiver
    }

    /// Clients that come to this address directly.
    #[must_use]
    pub fn door(&self, address: &[u8]) -> mpsc::UnboundedReceiver<ServedStream> {
        let (arrivals, receiver) = mpsc::unbounded_channel();
        self.lock().doors.insert(address.to_vec(), Door { arrivals, connections: Vec::new() });
        receiver
    }

    /// A client's connection to an address, at once; None if nobody is there.
    #[must_use]
    pub fn enter(&self, address: &[u8], buffer_bytes: usize) -> Option<ClientEnd> {
        let mut state = self.lock();
        let door = state.doors.get_mut(address)?;
        let (near, far, fate) = connection(buffer_bytes);
        door.connections.retain(|fate| fate.strong_count() > 0);
        door.connections.push(fate);
        door.arrivals.send(far).ok()?;
        Some(near)
    }

    /// Dials from an address.
    #[must_use]
    pub fn dialer(&self, from: &[u8]) -> SimDial {
        SimDial { network: self.clone(), from: from.to_vec() }
    }

    fn fold(&self, bytes: &[u8]) {
        let mut state = self.lock();
        state.digest = bytes
            .iter()
            .fold(state.digest, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    }

    fn stands(&self, from: &[u8], to: &[u8]) -> bool {
        let state = self.lock();
        state.blocked.contains(&(from.to_vec(), to.to_vec()))
            || state.paused.contains(from)
            || state.paused.contains(to)
    }

    fn lives(&self, one: &[u8], other: &[u8]) -> (u64, u64) {
        let state = self.lock();
        let life = |address: &[u8]| state.lives.get(address).copied().unwrap_or(0);
        (life(one), life(other))
    }

    /// Delay of the next chunk; None if the connection breaks at it.
    fn next_delay(&self) -> Option<Duration> {
        let mut state = self.lock();
        let Weather { delay_min, delay_max, slow_per_10000, break_per_10000 } = state.weather;
        let dice = state.random.random_range(0..10_000);
        if dice < break_per_10000 {
            return None;
        }
        let span = (delay_max - delay_min).as_micros() as u64;
        let mut delay = delay_min + Duration::from_micros(state.random.random_range(0..=span));
        if dice < break_per_10000 + slow_per_10000 {
            delay *= state.random.random_range(2..200);
        }
        Some(delay)
    }

    async fn connect(&self, from: &[u8], to: &[u8]) -> io::Result<DuplexStream> {
        let mut changed = self.changed.subscribe();
        let waiting = async {
            while self.stands(from, to) || self.stands(to, from) {
                if changed.changed().await.is_err() {
                    return;
                }
            }
        };
        if tokio::time::timeout(DIAL_TIMEOUT, waiting).await.is_err() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        sleep(self.next_delay().unwrap_or_default()).await;
        let born = self.lives(from, to);
        let listener = self.lock().listeners.get(to).cloned();
        let listener = listener.ok_or(io::ErrorKind::ConnectionRefused)?;
        let (ours, near) = duplex(BUFFER_BYTES);
        let (far, theirs) = duplex(BUFFER_BYTES);
        listener.send(theirs).map_err(|_| io::ErrorKind::ConnectionRefused)?;
        let (near_read, near_write) = split(near);
        let (far_read, far_write) = split(far);
        let end = CancellationToken::new();
        let (out, back) = ((from.to_vec(), to.to_vec()), (to.to_vec(), from.to_vec()));
        tokio::spawn(self.clone().pump(near_read, far_write, out, born, end.clone()));
        tokio::spawn(self.clone().pump(far_read, near_write, back, (born.1, born.0), end));
        Ok(ours)
    }

    /// Moves the bytes of one direction until the connection ends.
    async fn pump(
        self,
        mut from: ReadHalf<DuplexStream>,
        mut to: WriteHalf<DuplexStream>,
        (source, target): (Vec<u8>, Vec<u8>),
        born: (u64, u64),
        end: CancellationToken,
    ) {
        let mut changed = self.changed.subscribe();
        let mut buffer = vec![0; CHUNK_BYTES];
        let moving = async {
            loop {
                let count = match from.read(&mut buffer).await {
                    Ok(count) if count > 0 => count,
                    _ => break,
                };
                let Some(delay) = self.next_delay() else { break };
                sleep(delay).await;
                while self.stands(&source, &target) {
                    if changed.changed().await.is_err() {
                        break;
                    }
                }
                if self.lives(&source, &target) != born {
                    break;
                }
                self.fold(&buffer[..count]);
                if to.write_all(&buffer[..count]).await.is_err() {
                    break;
                }
            }
        };
        let mut crashes = self.changed.subscribe();
        let crashed = async {
            while self.lives(&source, &target) == born {
                if crashes.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            biased;
            () = end.cancelled() => {}
            () = crashed => {}
            () = moving => {}
        }
        // One broken direction breaks the other.
        end.cancel();
    }
}

/// Dials from one address.
#[derive(Clone, Debug)]
pub struct SimDial {
    network: Network,
    from: Vec<u8>,
}

impl SimDial {
    /// A stream to an address.
    ///
    /// # Errors
    /// Nobody listens there, or nothing gets through.
    pub async fn connect(&self, to: &[u8]) -> io::Result<DuplexStream> {
        self.network.connect(&self.from, to).await
    }
}

impl Dial for SimDial {
    fn dial(&self, address: Vec<u8>) -> BoxFuture<'static, io::Result<Stream>> {
        let dialer = self.clone();
        Box::pin(async move {
            let (read, write) = split(dialer.connect(&address).await?);
            Ok(Stream { read: Box::new(read), write: Box::new(write) })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run<T>(test: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(test)
    }

    async fn pair(network: &Network) -> (DuplexStream, DuplexStream) {
        let mut listener = network.listen(b"b");
        let near = network.dialer(b"a").connect(b"b").await.expect("a listener");
        (near, listener.recv().await.expect("a connection"))
    }

    #[test]
    fn bytes_keep_their_order_and_a_seed_gives_one_run() {
        let once = |seed| {
            run(async {
                let network = Network::new(seed);
                network.set_weather(Weather { slow_per_10000: 1000, ..CALM });
                let (mut near, mut far) = pair(&network).await;
                let sending = async {
                    for number in 0..1000u32 {
                        near.write_all(&number.to_le_bytes()).await.expect("room");
                        if number % 100 == 0 {
                            sleep(Duration::from_millis(3)).await;
                        }
                    }
                };
                let receiving = async {
                    for number in 0..1000u32 {
                        assert_eq!(far.read_u32_le().await.expect("bytes"), number);
                    }
                };
                let began = tokio::time::Instant::now();
                tokio::join!(sending, receiving);
                (began.elapsed(), network.digest())
            })
        };
        assert_eq!(once(1), once(1));
        assert!((2..9).any(|seed| once(seed).0 != once(1).0), "the delays do not depend on the seed");
    }

    #[test]
    fn a_one_way_block_holds_one_direction_and_a_crash_breaks_both() {
        run(async {
            let network = Network::new(1);
            let (mut near, mut far) = pair(&network).await;
            network.block(b"a", b"b");
            near.write_all(b"held").await.expect("room");
            far.write_all(b"free").await.expect("room");
            let mut bytes = [0; 4];
            near.read_exact(&mut bytes).await.expect("bytes");
            assert!(tokio::time::timeout(Duration::from_secs(9), far.read_exact(&mut bytes)).await.is_err());
            network.heal();
            far.read_exact(&mut bytes).await.expect("bytes");
            assert_eq!(&bytes, b"held");

            network.crash(b"b");
            assert_eq!(near.read(&mut bytes).await.expect("an end"), 0);
            assert!(network.dialer(b"a").connect(b"b").await.is_err());
        });
    }
}
