//! Connections that were upgraded to another protocol. In practice these are WebSockets.

use std::time::Duration;

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::idle::Activity;

/// Copies bytes in both directions until both sides have closed, one fails, or there is no activity
/// for `timeout`.
pub async fn copy_both_ways(client: Upgraded, target: Upgraded, timeout: Duration) {
    let activity = Activity::new();
    let (client_out, client_in) = tokio::io::split(TokioIo::new(client));
    let (target_out, target_in) = tokio::io::split(TokioIo::new(target));
    let both = async {
        tokio::try_join!(
            copy(client_out, target_in, &activity),
            copy(target_out, client_in, &activity),
        )
    };
    tokio::select! {
        ended = both => if let Err(error) = ended {
            tracing::debug!(%error, "upgraded connection failed");
        },
        () = activity.clone().idle_for(timeout) => {
            tracing::info!("upgraded connection closed: idle for {timeout:?}");
        }
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    activity: &Activity,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        activity.touch();
        to.write_all(&buffer[..length]).await?;
        to.flush().await?;
    }
}
