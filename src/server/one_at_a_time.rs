//! A host's connect function may block beyond any deadline: an attempt that was given up is taken up again by the next
//! dial of the same address, never doubled. So a server that asks for ever does not fill the pool of threads.
//! spec: c-api 3.4.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;

use crate::transport::dial::{Dial, Stream};

type Dialling = BoxFuture<'static, io::Result<Stream>>;
type Abandoned = Arc<Mutex<HashMap<Vec<u8>, Dialling>>>;

/// Dials, each address once at a time.
pub(super) struct OneAtATime {
    dial: Arc<dyn Dial>,
    /// At most one for each address that was ever dialled and has not answered.
    abandoned: Abandoned,
}

impl OneAtATime {
    /// Dials over `dial`.
    pub(super) fn new(dial: Arc<dyn Dial>) -> OneAtATime {
        OneAtATime { dial, abandoned: Abandoned::default() }
    }
}

impl Dial for OneAtATime {
    fn dial(&self, address: Vec<u8>) -> Dialling {
        let earlier = self.abandoned.lock().unwrap_or_else(PoisonError::into_inner).remove(&address);
        let dialling = earlier.unwrap_or_else(|| self.dial.dial(address.clone()));
        Box::pin(Attempt { address, dialling: Some(dialling), abandoned: Arc::clone(&self.abandoned) })
    }
}

/// Whoever drops it before its end leaves the dial to the next.
struct Attempt {
    address: Vec<u8>,
    dialling: Option<Dialling>,
    abandoned: Abandoned,
}

impl Future for Attempt {
    type Output = io::Result<Stream>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        let Some(dialling) = &mut self.dialling else { return Poll::Pending };
        let result = dialling.as_mut().poll(context);
        if result.is_ready() {
            self.dialling = None;
        }
        result
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(dialling) = self.dialling.take() {
            let mut abandoned = self.abandoned.lock().unwrap_or_else(PoisonError::into_inner);
            abandoned.insert(std::mem::take(&mut self.address), dialling);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::client::testing::{Reply, ScriptedNodes};

    #[tokio::test(start_paused = true)]
    async fn a_dial_that_hangs_is_not_doubled_by_the_next() {
        let nodes = Arc::new(ScriptedNodes::default());
        nodes.hang("a");
        nodes.answer("b", |_| Reply::Silence);
        let dial = OneAtATime::new(Arc::clone(&nodes) as Arc<dyn Dial>);

        for _ in 0..5 {
            assert!(timeout(Duration::from_secs(1), dial.dial(b"a".to_vec())).await.is_err());
        }
        for _ in 0..2 {
            assert!(dial.dial(b"b".to_vec()).await.is_ok());
            assert!(dial.dial(b"c".to_vec()).await.is_err());
        }

        assert_eq!(nodes.dialled(), ["a", "b", "c", "b", "c"]);
    }
}
