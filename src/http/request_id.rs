//! stub
/// stub
#[derive(Clone, Copy, Debug)]
pub struct RequestId([u8; 36]);
impl RequestId {
    /// stub
    pub fn as_str(&self) -> &str { std::str::from_utf8(&self.0).unwrap_or("") }
}
