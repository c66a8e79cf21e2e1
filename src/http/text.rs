//! Numbers and addresses as text, straight into a byte buffer: for heads and log lines, which are written once per
//! request, the formatting machinery of the standard library costs more than all else in them.

use std::net::IpAddr;

/// Appends a whole number.
pub fn append_decimal(out: &mut Vec<u8>, value: u64) {
    let mut digits = [0; 20]; // u64::MAX has 20
    let start = write_digits(&mut digits, value);
    out.extend_from_slice(&digits[start..]);
}

/// Appends a whole number with zeros before it, `width` digits at least.
pub fn append_padded(out: &mut Vec<u8>, value: u64, width: usize) {
    let mut digits = [b'0'; 20];
    let start = write_digits(&mut digits, value).min(digits.len() - width.min(digits.len()));
    out.extend_from_slice(&digits[start..]);
}

/// Appends a number in lower-case hexadecimal digits.
pub fn append_hex(out: &mut Vec<u8>, value: u64) {
    let significant = 64 - value.leading_zeros().min(60);
    let digits = significant.div_ceil(4);
    for place in (0..digits).rev() {
        out.push(b"0123456789abcdef"[(value >> (4 * place)) as usize & 15]);
    }
}

/// Appends an address.
pub fn append_address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            for (index, octet) in address.octets().into_iter().enumerate() {
                if index > 0 {
                    out.push(b'.');
                }
                append_decimal(out, octet.into());
            }
        }
        IpAddr::V6(address) => {
            use std::io::Write as _;
            // Its shortest form is not worth writing again. Writing to a Vec cannot fail.
            let _ = write!(out, "{address}");
        }
    }
}

/// The numbers below 100 as two digits each: half the divisions, and those by a constant.
const PAIRS: &[u8; 200] = b"00010203040506070809101112131415161718192021222324252627282930313233343536373839\
    4041424344454647484950515253545556575859606162636465666768697071727374757677787980\
    81828384858687888990919293949596979899";

/// Writes the digits at the end of the buffer; returns where they start.
fn write_digits(digits: &mut [u8; 20], mut value: u64) -> usize {
    let mut start = digits.len();
    while value >= 10 {
        let pair = (value % 100) as usize * 2;
        value /= 100;
        start -= 2;
        digits[start..start + 2].copy_from_slice(&PAIRS[pair..pair + 2]);
        if value == 0 {
            return start;
        }
    }
    start -= 1;
    digits[start] = b'0' + value as u8;
    start
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    proptest! {
        #[test]
        fn numbers_read_as_the_standard_library_writes_them(value: u64, shift in 0u32..64, width in 0usize..=20) {
            let value = value >> shift;
            prop_assert_eq!(written(|out| append_decimal(out, value)), value.to_string());
            prop_assert_eq!(written(|out| append_hex(out, value)), format!("{value:x}"));
            prop_assert_eq!(written(|out| append_padded(out, value, width)), format!("{value:0width$}"));
        }

        #[test]
        fn addresses_read_as_the_standard_library_writes_them(v4: u32, v6: u128) {
            for address in [IpAddr::V4(v4.into()), IpAddr::V6(v6.into())] {
                prop_assert_eq!(written(|out| append_address(out, address)), address.to_string());
            }
        }
    }

    #[test]
    fn zero_and_the_largest_have_their_digits() {
        for value in [0, 1, 15, 16, u64::MAX] {
            assert_eq!(written(|out| append_hex(out, value)), format!("{value:x}"));
            assert_eq!(written(|out| append_decimal(out, value)), value.to_string());
        }
    }
}
