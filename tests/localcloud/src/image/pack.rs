//! Makes an OCI image in memory. The same contents give the same bytes, and so the same digest.
//!
//! <https://github.com/opencontainers/image-spec>

use std::io::Write;
use std::path::Path;

use anyhow::Context;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use oci_spec::image::{
    ANNOTATION_CREATED, Arch, ConfigBuilder, DescriptorBuilder, ImageConfigurationBuilder,
    ImageManifestBuilder, MediaType, Os, RootFsBuilder, Sha256Digest,
};
use sha2::{Digest, Sha256};

/// The creation time of everything in an image. A real one would change the digest.
const EPOCH: &str = "1970-01-01T00:00:00Z";

/// A file to put into an image.
#[derive(Debug, Clone)]
pub struct File {
    /// The path in the image, with or without a leading slash.
    pub path: String,
    /// The permission bits, for example `0o755`.
    pub mode: u32,
    /// The bytes of the file.
    pub contents: Vec<u8>,
}

/// The files of an image. They are compressed once for all images that contain them.
#[derive(Debug, Clone)]
pub struct Layer {
    compressed: Bytes,
    diff_id: String,
}

impl Layer {
    /// Makes a layer with these files.
    ///
    /// # Errors
    /// If a path cannot be stored in a tar archive.
    pub fn of(files: &[File]) -> anyhow::Result<Self> {
        let tar = tar(files).context("making the layer")?;
        Ok(Self {
            compressed: Bytes::from(compress(&tar)?),
            diff_id: format!("sha256:{}", sha256(&tar)),
        })
    }

    /// The layer that holds one program and nothing else, at `/app`. With a folder `cache`, it is
    /// compressed once for all processes that share the folder.
    ///
    /// # Errors
    /// When the program cannot be read or the folder cannot be written.
    pub fn of_program(program: &Path, cache: Option<&Path>) -> anyhow::Result<Self> {
        let contents =
            std::fs::read(program).with_context(|| format!("reading {}", program.display()))?;
        let tar = tar(&[File {
            path: "app".to_string(),
            mode: 0o755,
            contents,
        }])
        .context("making the layer")?;
        let digest = sha256(&tar);
        let compressed = match cache {
            Some(folder) => compress_once(&tar, folder, &digest)?,
            None => compress(&tar)?,
        };
        Ok(Self {
            compressed: Bytes::from(compressed),
            diff_id: format!("sha256:{digest}"),
        })
    }
}

/// Reads what this or another process has compressed, or compresses it and keeps it.
fn compress_once(tar: &[u8], folder: &Path, digest: &str) -> anyhow::Result<Vec<u8>> {
    let path = folder.join(format!("{digest}.gz"));
    if let Ok(compressed) = std::fs::read(&path) {
        return Ok(compressed);
    }
    let compressed = compress(tar)?;
    std::fs::create_dir_all(folder)?;
    // Renamed when it is whole, so that no other process reads half of it.
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(&compressed)?;
    file.persist(&path)
        .with_context(|| format!("writing {}", path.display()))?;
    Ok(compressed)
}

fn compress(tar: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(tar)?;
    gzip.finish()
}

/// How a container of an image is started.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// The program to start, followed by its first arguments.
    pub entrypoint: Vec<String>,
    /// Environment variables. Those of the task definition override them.
    pub env: Vec<(String, String)>,
    /// The TCP port that the image declares with `EXPOSE`.
    pub exposed_port: Option<u16>,
    /// The working directory of the program. `/` if absent.
    pub working_dir: Option<String>,
}

impl Config {
    /// Starts the program of [`Layer::of_program`]; the image declares port 8000.
    pub fn of_program(env: &[(String, String)]) -> Self {
        Self {
            entrypoint: vec!["/app".to_string()],
            env: env.to_vec(),
            exposed_port: Some(8000),
            working_dir: Some("/".to_string()),
        }
    }
}

/// An image that is ready to be pushed.
#[derive(Debug, Clone)]
pub struct PackedImage {
    pub(super) manifest: Bytes,
    pub(super) config: Bytes,
    pub(super) layer: Bytes,
    digest: String,
}

impl PackedImage {
    /// The digest of the manifest, `sha256:…`, by which the image is deployed.
    pub fn digest(&self) -> &str {
        &self.digest
    }
}

/// Makes an image for linux/amd64 with one layer.
///
/// # Errors
/// If a part of the image cannot be encoded.
pub fn pack(layer: &Layer, config: &Config) -> anyhow::Result<PackedImage> {
    let mut container = ConfigBuilder::default()
        .entrypoint(config.entrypoint.clone())
        .env(env(&config.env))
        .working_dir(config.working_dir.as_deref().unwrap_or("/"));
    if let Some(port) = config.exposed_port {
        container = container.exposed_ports(vec![format!("{port}/tcp")]);
    }
    let rootfs = RootFsBuilder::default()
        .typ("layers")
        .diff_ids(vec![layer.diff_id.clone()])
        .build()?;
    let configuration = ImageConfigurationBuilder::default()
        .created(EPOCH)
        .architecture(Arch::Amd64)
        .os(Os::Linux)
        .config(container.build()?)
        .rootfs(rootfs)
        .history(vec![])
        .build()?;
    let config = Bytes::from(serde_json::to_vec(&configuration)?);

    let descriptor = |media_type, bytes: &Bytes| -> anyhow::Result<_> {
        Ok(DescriptorBuilder::default()
            .media_type(media_type)
            .digest(sha256(bytes).parse::<Sha256Digest>()?)
            .size(bytes.len() as u64)
            .build()?)
    };
    let manifest = ImageManifestBuilder::default()
        .schema_version(2u32)
        .media_type(MediaType::ImageManifest)
        .config(descriptor(MediaType::ImageConfig, &config)?)
        .layers(vec![descriptor(
            MediaType::ImageLayerGzip,
            &layer.compressed,
        )?])
        .annotations([(ANNOTATION_CREATED.to_string(), EPOCH.to_string())])
        .build()?;
    let manifest = Bytes::from(serde_json::to_vec(&manifest)?);
    Ok(PackedImage {
        digest: format!("sha256:{}", sha256(&manifest)),
        manifest,
        config,
        layer: layer.compressed.clone(),
    })
}

fn env(variables: &[(String, String)]) -> Vec<String> {
    let pair = |(name, value): &(String, String)| format!("{name}={value}");
    variables.iter().map(pair).collect()
}

fn tar(files: &[File]) -> std::io::Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    for file in files {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(file.mode);
        header.set_size(file.contents.len() as u64);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        let path = file.path.trim_start_matches('/');
        builder.append_data(&mut header, path, file.contents.as_slice())?;
    }
    builder.into_inner()
}

fn sha256(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}
