//! Container images: packing and pushing them without Docker, pulling and unpacking them.

use std::sync::Once;

use oci_client::Client;
use oci_client::client::{ClientConfig, ClientProtocol, linux_amd64_resolver};

mod pack;
mod pull;
mod push;
#[cfg(test)]
mod registry;
#[cfg(test)]
mod tests;
mod unpack;

pub use pack::{Config, File, Layer, PackedImage, pack};
pub use pull::{PullError, UnpackedImage, pull};
pub use push::push;

/// A client for a registry that speaks plain HTTP, as the gateway does; of a multi-architecture
/// image it takes what Fargate takes by default, linux/amd64.
fn client() -> Client {
    // The client wants a TLS provider even when it never speaks TLS. If someone else has installed
    // one, that one will do.
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    Client::new(ClientConfig {
        protocol: ClientProtocol::Http,
        // There are none, and without this each client would read all that the machine trusts.
        accept_invalid_certificates: true,
        platform_resolver: Some(Box::new(linux_amd64_resolver)),
        ..ClientConfig::default()
    })
}
