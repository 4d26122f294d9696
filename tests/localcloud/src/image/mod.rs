//! Packs, pushes, pulls and unpacks container images without Docker.

use std::sync::Once;

use oci_client::Client;
use oci_client::client::{ClientConfig, ClientProtocol, linux_amd64_resolver};

mod folder;
mod pack;
mod pull;
mod push;
#[cfg(test)]
mod registry;
#[cfg(test)]
mod tests;
mod unpack;

pub use folder::Folder;
pub use pack::{Config, File, Layer, PackedImage, pack};
pub use pull::{PullError, Pulled, UnpackedImage, pull};
pub use push::push;

/// A client for a registry over plain HTTP, such as the gateway. From a multi-architecture image it
/// takes linux/amd64, which is Fargate's default.
fn client() -> Client {
    // The client requires a TLS provider even though it uses no TLS. A provider that is already
    // installed is fine.
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    Client::new(ClientConfig {
        protocol: ClientProtocol::Http,
        // There are no certificates. Without this option each client would read all certificates that
        // the machine trusts.
        accept_invalid_certificates: true,
        platform_resolver: Some(Box::new(linux_amd64_resolver)),
        ..ClientConfig::default()
    })
}
