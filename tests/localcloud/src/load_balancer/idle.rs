//! The idle timeout: how long a connection may go without a byte in either direction.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Instant;

/// When the last bytes went over a connection. Clones share the time.
#[derive(Debug, Clone)]
pub struct Activity(Arc<Mutex<Instant>>);

impl Activity {
    pub fn new() -> Self {
        Activity(Arc::new(Mutex::new(Instant::now())))
    }

    pub fn touch(&self) {
        *self.0.lock().unwrap_or_else(|p| p.into_inner()) = Instant::now();
    }

    /// Returns when there was no activity for `timeout`.
    pub async fn idle_for(self, timeout: Duration) {
        loop {
            let until = *self.0.lock().unwrap_or_else(|p| p.into_inner()) + timeout;
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }
}

/// The reason why a body ends early.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A body that records activity, and that ends with an error when its guard returns a reason.
pub struct GuardedBody<B> {
    body: B,
    activity: Activity,
    guard: Option<Pin<Box<dyn Future<Output = &'static str> + Send>>>,
}

impl<B> GuardedBody<B> {
    /// A body that only records activity.
    pub fn watched(body: B, activity: Activity) -> Self {
        GuardedBody {
            body,
            activity,
            guard: None,
        }
    }

    /// A body that records activity, and that fails with the reason that `guard` returns if it is
    /// still incomplete then.
    pub fn guarded(
        body: B,
        activity: Activity,
        guard: impl Future<Output = &'static str> + Send + 'static,
    ) -> Self {
        GuardedBody {
            guard: Some(Box::pin(guard)),
            ..Self::watched(body, activity)
        }
    }
}

impl<B> Body for GuardedBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BodyError>,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            this.activity.touch();
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        if let Some(guard) = &mut this.guard
            && let Poll::Ready(reason) = guard.as_mut().poll(context)
        {
            this.guard = None;
            return Poll::Ready(Some(Err(reason.into())));
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of a response, from a target or from the load balancer itself.
pub type ResponseBody = http_body_util::combinators::UnsyncBoxBody<Bytes, BodyError>;

pub fn boxed<B>(body: B) -> ResponseBody
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BodyError>,
{
    body.map_err(Into::into).boxed_unsync()
}
