//! Hexadecimal text of bytes.

use std::fmt::Write as _;

/// Two lower-case digits for each byte.
pub(crate) fn encode(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a String cannot fail");
        text
    })
}

/// The `N` bytes of a text of `2 * N` digits, upper or lower case. `None` for any other text.
pub(crate) fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    decode_all(text)?.try_into().ok()
}

/// The bytes of a text of digits, upper or lower case, two for each byte. `None` for any other text.
pub(crate) fn decode_all(text: &str) -> Option<Vec<u8>> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    let nibble = |digit: u8| u8::try_from(char::from(digit).to_digit(16)?).ok();
    pairs.iter().map(|[high, low]| Some(nibble(*high)? << 4 | nibble(*low)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_encoded_in_lower_case_and_decoded_in_both() {
        let bytes = [0x00, 0x0f, 0xa5, 0xff];
        assert_eq!(encode(&bytes), "000fa5ff");
        for text in ["000fa5ff", "000FA5FF", "000fA5fF"] {
            assert_eq!(decode(text), Some(bytes), "{text}");
        }
    }

    #[test]
    fn text_of_another_length_or_alphabet_is_not_decoded() {
        for text in ["", "0", "000fa5f", "000fa5ff0", "000fa5ff00", "000fa5fg", "000fa5f ", "+00fa5ff", "00éa5ff"] {
            assert_eq!(decode::<4>(text), None, "{text}");
        }
    }
}
