//! Packets in hex, in the forms in which people have them: `tcpdump -x`, `-xx`, `-X`, xxd, Wireshark, source text.

/// Bytes that a line of a dump holds at most.
const IN_LINE: usize = 32;

/// Reads a packet: bare digits with anything usual between them, or a dump with an offset in front of each line.
///
/// # Errors
/// It is neither, or holds more than one packet.
pub(super) fn read(text: &str) -> Result<Vec<u8>, String> {
    // A shell makes one line of several where nobody quotes them.
    let text = text.replace(" 0x00", "\n0x00").replace("\t0x00", "\n0x00");
    let is_dump = text.lines().any(|line| offset(line, 0).is_some());
    if is_dump { dump(&text) } else { digits(&text) }
}

fn dump(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    for line in text.lines() {
        match offset(line, bytes.len()) {
            Some((at, rest)) if at == bytes.len() => bytes.extend(of_line(rest)?),
            Some((0, _)) => {
                return Err("there is more than one packet: one is explained at a time".to_owned());
            }
            Some((at, _)) => {
                return Err(format!("the dump goes on at {at:#x} where {:#x} would be next", bytes.len()));
            }
            // What tcpdump says of the packet, above its bytes.
            None if bytes.is_empty() => {}
            None if line.trim().is_empty() => {}
            None => return Err(format!("`{}` is no line of a dump", line.trim())),
        }
    }
    Ok(bytes)
}

/// The offset in front of a dump's line, and what is behind it, if the line has one.
fn offset(line: &str, expected: usize) -> Option<(usize, Line<'_>)> {
    let line = line.trim_start();
    let (word, rest) = line.split_once(char::is_whitespace)?;
    let (digits, has_colon) = word.strip_suffix(':').map_or((word, false), |digits| (digits, true));
    let digits = digits.strip_prefix("0x").unwrap_or(digits);
    if !(4..=8).contains(&digits.len()) {
        return None;
    }
    let at = usize::from_str_radix(digits, 16).ok()?;
    // Without a colon it may be part of the packet; but then what follows is not written in single bytes.
    let follows = rest.split_whitespace().next()?;
    let is_offset = has_colon || at == expected && follows.len() == 2 && byte(follows).is_some();
    is_offset.then_some((at, Line { rest, has_colon }))
}

/// A dump's line behind its offset.
#[derive(Clone, Copy)]
struct Line<'a> {
    rest: &'a str,
    has_colon: bool,
}

/// The bytes of a line, without the text beside them: behind two blanks where bytes stand in one block, behind three or a
/// bar where a gap parts them into halves.
fn of_line(Line { rest, has_colon }: Line<'_>) -> Result<Vec<u8>, String> {
    let rest = rest.trim_start();
    let gap = if has_colon { "  " } else { "   " };
    let block = rest.split(gap).next().unwrap_or_default();
    let block = block.split('|').next().unwrap_or_default();
    let mut bytes = digits(block).map_err(|why| format!("{why}: `{}`", block.trim()))?;
    bytes.truncate(IN_LINE);
    Ok(bytes)
}

/// Digits, with blanks, colons, commas, `0x` or `\x` between them.
fn digits(text: &str) -> Result<Vec<u8>, String> {
    let bare = text.replace("\\x", " ").replace("0x", " ").replace("0X", " ");
    let digits: String = bare
        .chars()
        .filter(|c| !c.is_whitespace() && !matches!(c, ':' | ',' | '-' | '{' | '}' | ';'))
        .collect();
    if let Some(wrong) = digits.chars().find(|c| !c.is_ascii_hexdigit()) {
        return Err(format!("`{wrong}` is no hex digit"));
    }
    if digits.is_empty() || digits.len() % 2 == 1 {
        return Err("not an even number of hex digits".to_owned());
    }
    digits
        .as_bytes()
        .chunks(2)
        .map(|pair| std::str::from_utf8(pair).ok().and_then(byte))
        .collect::<Option<Vec<u8>>>()
        .ok_or_else(|| "not an even number of hex digits".to_owned())
}

fn byte(pair: &str) -> Option<u8> {
    u8::from_str_radix(pair, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_the_same_packet() {
        let packet: Vec<u8> = (0x45..0x45 + 20).collect();
        for text in [
            "4546474849 4a4b4c4d4e 4f50515253 5455565758",
            "45:46:47:48:49:4a:4b:4c:4d:4e:4f:50:51:52:53:54:55:56:57:58",
            "0x45464748494a4b4c4d4e4f505152535455565758",
            "0x45, 0x46, 0x47, 0x48, 0x49, 0x4a, 0x4b, 0x4c, 0x4d, 0x4e, 0x4f, 0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58",
            r"\x45\x46\x47\x48\x49\x4a\x4b\x4c\x4d\x4e\x4f\x50\x51\x52\x53\x54\x55\x56\x57\x58",
            // tcpdump -x, with what it says above, and -X
            "12:00:00.000000 IP 192.0.2.1.5 > 192.0.2.2.6: UDP, length 0\n\t0x0000:  4546 4748 494a 4b4c 4d4e 4f50 5152 5354\n\t0x0010:  5556 5758\n",
            "\t0x0000:  4546 4748 494a 4b4c 4d4e 4f50 5152 5354  EFGHIJKLMNOPQRST\n\t0x0010:  5556 5758                                ab",
            // Not quoted in a shell.
            "0x0000: 4546 4748 494a 4b4c 4d4e 4f50 5152 5354 0x0010: 5556 5758",
            // xxd, Wireshark, hexdump -C
            "00000000: 4546 4748 494a 4b4c 4d4e 4f50 5152 5354  EFGHIJKLMNOPQRST\n00000010: 5556 5758                                UVWX",
            "0000   45 46 47 48 49 4a 4b 4c  4d 4e 4f 50 51 52 53 54   EFGHIJKLMNOPQRST\n0010   55 56 57 58                                        UVWX",
            "00000000  45 46 47 48 49 4a 4b 4c  4d 4e 4f 50 51 52 53 54  |EFGHIJKLMNOPQRST|\n00000010  55 56 57 58                                       |UVWX|\n",
        ] {
            assert_eq!(read(text).as_ref(), Ok(&packet), "{text}");
        }
        // A frame may begin like an offset.
        assert_eq!(read("0000 5e00 0101").unwrap(), [0, 0, 0x5e, 0, 1, 1]);
    }

    #[test]
    fn what_is_no_packet_is_refused() {
        for (text, why) in [
            ("", "even"),
            ("454", "even"),
            ("45 4g", "`g`"),
            ("0x0000:  4546\n0x0010:  4748", "goes on at 0x10"),
            ("0x0000:  4546\n0x0000:  4748", "more than one"),
            ("0x0000:  4546\nand then", "no line of a dump"),
        ] {
            assert!(read(text).is_err_and(|told| told.contains(why)), "{text}: {:?}", read(text));
        }
    }
}
