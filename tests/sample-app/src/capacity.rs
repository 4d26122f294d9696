//! How many requests a task serves at once, and how long each takes, so that it can be full.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::middleware::Next;
use axum::response::Response;
use tokio::sync::Semaphore;

use crate::App;
use crate::settings::Settings;

/// On a response, if the capacity is limited: how many requests were in line when this one came, with itself, or 0 if it
/// was served at once.
const IN_LINE: &str = "Sample-In-Line";

/// The places of a task.
#[derive(Debug)]
pub struct Capacity {
    places: Option<Semaphore>,
    in_line: AtomicUsize,
    service_time: Duration,
}

impl Capacity {
    pub fn new(settings: &Settings) -> Self {
        Capacity {
            places: settings
                .concurrent_requests
                .map(|places| Semaphore::new(places.get())),
            in_line: AtomicUsize::new(0),
            service_time: settings.service_time,
        }
    }

    /// Takes a place for the time of the service, and waits in line until one is free. Returns how many requests were in
    /// line with this one, or `None` without a limit.
    async fn serve(&self) -> Option<usize> {
        let Some(places) = &self.places else {
            tokio::time::sleep(self.service_time).await;
            return None;
        };
        // This succeeds only if no request waits: the semaphore gives a returned place to the request that has waited longest.
        let (place, in_line) = match places.try_acquire() {
            Ok(place) => (Some(place), 0),
            Err(_) => {
                let waiting = Waiting::join(&self.in_line);
                let place = places.acquire().await;
                (place.ok(), waiting.number)
            }
        };
        tokio::time::sleep(self.service_time).await;
        drop(place);
        Some(in_line)
    }
}

/// A request in line. It leaves the line when this is dropped, also because its client went away.
struct Waiting<'a> {
    in_line: &'a AtomicUsize,
    number: usize,
}

impl<'a> Waiting<'a> {
    fn join(in_line: &'a AtomicUsize) -> Self {
        let number = in_line.fetch_add(1, Ordering::SeqCst) + 1;
        Waiting { in_line, number }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.in_line.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Middleware. Serves a request when a place is free.
pub async fn limit(State(app): State<App>, request: Request, next: Next) -> Response {
    let in_line = app.capacity.serve().await;
    let mut response = next.run(request).await;
    if let Some(number) = in_line {
        response
            .headers_mut()
            .insert(IN_LINE, HeaderValue::from(number));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future::join_all;
    use tokio::time::{Instant, timeout};

    const SERVICE_TIME: Duration = Duration::from_millis(80);

    fn capacity(places: &str) -> Capacity {
        let variables = [
            ("CONCURRENT_REQUESTS", places),
            ("SERVICE_MILLISECONDS", "80"),
        ];
        let settings = Settings::read(|name| {
            let mut all = variables.iter();
            all.find(|(it, _)| *it == name)
                .map(|(_, value)| value.to_string())
        });
        Capacity::new(&settings.unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn requests_beyond_the_places_wait_in_line() {
        let capacity = capacity("2");
        let begun = Instant::now();
        let served = join_all((0..5).map(|_| capacity.serve())).await;
        assert_eq!(served, [0, 0, 1, 2, 3].map(Some));
        assert_eq!(begun.elapsed(), 3 * SERVICE_TIME);
        assert_eq!(capacity.serve().await, Some(0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_is_given_up_leaves_the_line_and_its_place() {
        let capacity = capacity("1");
        let given_up = async || timeout(SERVICE_TIME / 2, capacity.serve()).await;
        let (_, first, second) = tokio::join!(given_up(), given_up(), given_up());
        assert!(first.is_err() && second.is_err());
        assert_eq!(capacity.serve().await, Some(0));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_nobody_waits_in_line() {
        let capacity = capacity("");
        let begun = Instant::now();
        let served = join_all((0..5).map(|_| capacity.serve())).await;
        assert_eq!(served, [None; 5]);
        assert_eq!(begun.elapsed(), SERVICE_TIME);
    }
}
