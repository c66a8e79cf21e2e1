//! Content codings, decoded.

use std::io::{self, Read};

use super::Response;

/// The body as the app has sent it. Fails when the coding has no end, or something stands behind it.
pub(crate) fn decoded(response: &Response) -> Vec<u8> {
    assert_eq!(response.cut, None, "{:?}", response.headers);
    let Some(coding) = response.header("content-encoding") else { return response.body.clone() };
    let mut decoder = Decoder::new(coding);
    let mut out = decoder.push(&response.body);
    out.extend(decoder.end());
    out
}

/// Decodes what comes in pieces: all that can be had of it at any time.
pub(crate) struct Decoder {
    coding: String,
    all: Vec<u8>,
    told: usize,
}

impl Decoder {
    pub(crate) fn new(coding: &str) -> Self {
        Self { coding: coding.to_owned(), all: Vec::new(), told: 0 }
    }

    /// What one more piece adds.
    pub(crate) fn push(&mut self, piece: &[u8]) -> Vec<u8> {
        self.all.extend_from_slice(piece);
        let (out, _) = self.decode();
        let new = out[self.told..].to_vec();
        self.told = out.len();
        new
    }

    /// Whether it has come to its end.
    pub(crate) fn is_whole(&self) -> bool {
        self.decode().1.is_ok()
    }

    /// The last of it. Fails when it has no end.
    fn end(&self) -> Vec<u8> {
        let (out, ended) = self.decode();
        ended.unwrap_or_else(|error| panic!("{}: {error}", self.coding));
        out[self.told..].to_vec()
    }

    fn decode(&self) -> (Vec<u8>, io::Result<()>) {
        let (mut out, bytes) = (Vec::new(), &self.all[..]);
        let ended = match self.coding.as_str() {
            "gzip" => {
                let mut decoder = flate2::bufread::GzDecoder::new(bytes);
                let read = decoder.read_to_end(&mut out);
                read.and_then(|_| {
                    if decoder.into_inner().is_empty() { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
                })
            }
            "br" => brotli::Decompressor::new(bytes, 4096).read_to_end(&mut out).map(drop),
            "zstd" => zstd(bytes, &mut out),
            other => panic!("{other}?"),
        };
        (out, ended)
    }
}

fn zstd(bytes: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let (mut context, mut input) = (zstd_safe::DCtx::create(), zstd_safe::InBuffer::around(bytes));
    let mut left = 1;
    while input.pos < bytes.len() {
        out.reserve(256 << 10);
        let written = out.len();
        let mut output = zstd_safe::OutBuffer::around_pos(out, written);
        left = context.decompress_stream(&mut output, &mut input).map_err(|_| io::ErrorKind::InvalidData)?;
    }
    if left == 0 { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
