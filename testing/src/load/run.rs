//! Runs clients for a time, all in one thread: closed loop (each as fast as it is answered) or open loop (at a given rate,
//! latency from the time at which a request was due).

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use super::connection::{Connection, LoadError};
use super::workload::{SCHEMA, Worker, Workload};

/// What is run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The node that leads.
    pub address: String,
    /// Databases, over which clients are spread.
    pub databases: Vec<String>,
    /// What they do.
    pub workload: Workload,
    /// Clients.
    pub clients: usize,
    /// Not measured.
    pub warm_up: Duration,
    /// Measured.
    pub time: Duration,
    /// Requests per second of all clients together; as many as are answered if there is none.
    pub rate: Option<f64>,
    /// Rows that are there.
    pub rows: u64,
}

/// What was measured.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Done in the measured time.
    pub done: u64,
    /// Length of that time.
    pub seconds: f64,
    /// Latencies in microseconds, sorted.
    pub latencies_us: Vec<u32>,
    /// Times that the node said busy.
    pub busy: u64,
    /// CPU seconds of this process in all, warm-up included.
    pub cpu_seconds: f64,
}

impl Outcome {
    /// Done per second.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        self.done as f64 / self.seconds
    }

    fn count(&mut self, begin: Instant, start: Instant, end: Instant) {
        let now = Instant::now();
        if begin >= start && now <= end {
            self.done += 1;
            self.latencies_us.push(u32::try_from((now - begin).as_micros()).unwrap_or(u32::MAX));
        }
    }

    /// Latency that this share of requests does not exceed, in microseconds.
    #[must_use]
    pub fn quantile_us(&self, share: f64) -> f64 {
        let last = self.latencies_us.len().saturating_sub(1);
        let place = ((self.latencies_us.len() as f64 * share) as usize).min(last);
        self.latencies_us.get(place).map_or(f64::NAN, |latency| f64::from(*latency))
    }

    /// The longest latency in microseconds.
    #[must_use]
    pub fn max_us(&self) -> f64 {
        self.quantile_us(1.0)
    }
}

/// Makes the table in every database.
///
/// # Errors
/// See `LoadError`.
pub fn make_tables(address: &str, databases: &[String]) -> Result<(), LoadError> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        for database in databases {
            Connection::open(address, database).await?.exec_sql(SCHEMA).await?;
        }
        Ok(())
    })
}

/// Runs a plan. `begun` is called when the measured time begins, `ended` when it ends.
///
/// # Errors
/// The first of a client; then all end.
pub fn run(plan: &Plan, begun: impl FnOnce(), ended: impl FnOnce()) -> Result<Outcome, LoadError> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let cpu = cpu_seconds();
    let outcome = runtime.block_on(LocalSet::new().run_until(run_here(plan, begun, ended)));
    let mut outcome = outcome?;
    outcome.cpu_seconds = cpu_seconds() - cpu;
    outcome.latencies_us.sort_unstable();
    Ok(outcome)
}

async fn run_here(plan: &Plan, begun: impl FnOnce(), ended: impl FnOnce()) -> Result<Outcome, LoadError> {
    let mut workers = Vec::with_capacity(plan.clients);
    for number in 0..plan.clients {
        let database = &plan.databases[number % plan.databases.len()];
        let seed = number as u64 + 1;
        workers.push(Worker::new(&plan.address, database, plan.workload, plan.rows, seed).await?);
    }
    let start = Instant::now() + plan.warm_up;
    let end = start + plan.time;
    let shared = Rc::new(RefCell::new(Outcome::default()));
    let mut clients = Vec::with_capacity(plan.clients);
    let mut due = Vec::new();
    for worker in workers {
        let shared = Rc::clone(&shared);
        match plan.rate {
            None => clients.push(tokio::task::spawn_local(closed_loop(worker, shared, start, end))),
            Some(_) => {
                let (sender, receiver) = mpsc::unbounded_channel();
                due.push(sender);
                clients.push(tokio::task::spawn_local(open_loop(worker, shared, start, end, receiver)));
            }
        }
    }
    if let Some(rate) = plan.rate {
        // A timer of tokio has steps of a millisecond.
        std::thread::spawn(move || pace(&due, rate, end));
    }
    tokio::time::sleep_until(start.into()).await;
    begun();
    tokio::time::sleep_until(end.into()).await;
    ended();
    for client in clients {
        client.await.map_err(|_| LoadError::Answer("a client panicked"))??;
    }
    let mut outcome = shared.take();
    outcome.seconds = plan.time.as_secs_f64();
    Ok(outcome)
}

/// Tells one client after the other that a request is due, `rate` times a second.
fn pace(clients: &[mpsc::UnboundedSender<Instant>], rate: f64, end: Instant) {
    let begin = Instant::now();
    for number in 0_u32.. {
        let due = begin + Duration::from_secs_f64(f64::from(number) / rate);
        if due >= end {
            return;
        }
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        // A client that has failed says why itself.
        let _ = clients[number as usize % clients.len()].send(due);
    }
}

async fn closed_loop(
    mut worker: Worker,
    shared: Rc<RefCell<Outcome>>,
    start: Instant,
    end: Instant,
) -> Result<(), LoadError> {
    loop {
        let begin = Instant::now();
        if begin >= end {
            break;
        }
        worker.step().await?;
        shared.borrow_mut().count(begin, start, end);
    }
    shared.borrow_mut().busy += worker.busy;
    Ok(())
}

async fn open_loop(
    mut worker: Worker,
    shared: Rc<RefCell<Outcome>>,
    start: Instant,
    end: Instant,
    mut due: mpsc::UnboundedReceiver<Instant>,
) -> Result<(), LoadError> {
    while let Some(due) = due.recv().await {
        worker.step().await?;
        // Late ones count, too.
        shared.borrow_mut().count(due, start, end + Duration::from_secs(60));
    }
    shared.borrow_mut().busy += worker.busy;
    Ok(())
}

fn cpu_seconds() -> f64 {
    crate::sample::Process::read(std::process::id()).map_or(0.0, |process| process.cpu_seconds)
}
