//! A temporary certificate for the HTTPS listener, which is made at every start.

use std::sync::Arc;

use anyhow::Context;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;

/// The names in the certificate: this machine, and the names that RFC 2606 and RFC 6761 reserve, so
/// that `curl --resolve test.example.com:8443:127.0.0.1` works too.
const NAMES: [&str; 9] = [
    "localhost",
    "*.localhost",
    "127.0.0.1",
    "::1",
    "example.com",
    "*.example.com",
    "*.example.org",
    "*.example.net",
    "*.example",
];

pub struct Tls {
    /// Accepts TLS connections that speak HTTP/1.1.
    pub acceptor: TlsAcceptor,
    /// The certificate, for clients that must trust it.
    pub certificate_pem: String,
}

/// Makes a key and a self-signed certificate.
pub fn self_signed() -> anyhow::Result<Tls> {
    let names = NAMES.map(str::to_string);
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(names).context("making a certificate")?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .context("using the certificate")?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Tls {
        acceptor: TlsAcceptor::from(Arc::new(config)),
        certificate_pem: cert.pem(),
    })
}
