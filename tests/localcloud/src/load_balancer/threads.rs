//! Threads of the load balancer's own, so that no other work of the local cloud delays a request.

use std::io;

use tokio::runtime::{Builder, EnterGuard, Handle, Runtime};

/// The number of threads.
const THREADS: usize = 2;

/// The threads on which load balancing and health checks run. What runs on them ends when this is dropped.
pub struct Threads(Option<Runtime>);

impl Threads {
    /// Starts the threads.
    ///
    /// # Errors
    /// If the system cannot start another thread.
    pub fn start() -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("load-balancer")
            .enable_all()
            .build()?;
        Ok(Self(Some(runtime)))
    }

    /// What is spawned until the guard is dropped runs on these threads.
    pub fn enter(&self) -> EnterGuard<'_> {
        self.handle().enter()
    }

    /// The runtime of the threads.
    pub fn handle(&self) -> &Handle {
        self.0.as_ref().expect("present until the drop").handle()
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // An ordinary drop waits for the threads, which an asynchronous caller must not do.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
