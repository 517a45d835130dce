"""Structured mutations of valid files: bytes, fields, lines, and the same inside compressed and packed containers."""

from __future__ import annotations

import gzip
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence

from hypothesis import strategies as st

# Sizes and counts at the limits of 8, 16, 32 and 64 bits.
NUMBERS = (0, 1, 2, 3, 7, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**16, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
NUMBERS += (2**40, 2**62, 2**63 - 1, 2**64 - 1)
TOKENS = ("", "-1", "0", "1", "--5", "²", "1e9", "nan", "9" * 20, "9" * 5000, "../x", "/etc/passwd", "\0", "é", "-")
TOKENS += ("a" * 300, "a/b/c", "\t", "\x85", "{}")

Change = tuple[int, int, int]  # what, where, with which value; each reduced to its range when it is applied
changes = st.lists(st.tuples(*[st.integers(0, 2**16 - 1)] * 3), min_size=1, max_size=4)


def change_bytes(content: bytes, edits: Sequence[Change]) -> bytes:
    """Flip, set, cut, repeat and insert bytes, and overwrite fields of 1 to 8 bytes; half of the time near the head."""
    data = bytearray(content)
    for kind, where, value in edits:
        at = where // 2 % (len(data) + 1)
        at = at % 64 if where % 2 else at
        number = NUMBERS[value % len(NUMBERS)]
        match kind % 8:
            case 0 if data:
                data[at % len(data)] ^= 1 << value % 8
            case 1 if data:
                data[at % len(data)] = value % 256
            case 2:
                del data[at:]
            case 3:
                del data[at : at + 1 + value % 16]
            case 4:
                data[at:at] = data[at : at + 1 + value % 64]
            case 5:
                data[at:at] = value.to_bytes(2, "big") * (1 + value % 8)
            case 6:
                size = (1, 2, 4, 8)[value // 32 % 4]
                data[at : at + size] = (number % 2 ** (8 * size)).to_bytes(size, "big")
            case 7:
                size = (1, 2, 4, 8)[value // 32 % 4]
                data[at : at + size] = (number % 2 ** (8 * size)).to_bytes(size, "little")
    return bytes(data)


def change_text(content: bytes, edits: Sequence[Change]) -> bytes:
    """Replace, remove and repeat words and lines; sometimes bytes, so that the text is no UTF-8 any more."""
    if edits[0][0] % 8 == 0:
        return change_bytes(content, edits)
    lines = content.decode().split("\n")
    for kind, where, value in edits:
        at = where % len(lines)
        separator = "\t" if "\t" in lines[at] else " "
        words = lines[at].split(separator)
        word = value // 32 % len(words)
        match kind // 8 % 6:
            case 0 | 1:
                words[word] = TOKENS[value % len(TOKENS)]
            case 2:
                del words[word]
            case 3:
                words.insert(word, TOKENS[value % len(TOKENS)])
            case 4:
                words = [separator.join(words)] * (value % 3)
            case 5:
                words = lines[value % len(lines)].split(separator)
        lines[at : at + 1] = ["\n".join(words)] if kind // 8 % 6 == 4 else [separator.join(words)]
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def inside_gzip(change: Callable[[bytes, Sequence[Change]], bytes]) -> Callable[[bytes, Sequence[Change]], bytes]:
    """Change the content of a gzip file, or the file itself."""

    def changed(content: bytes, edits: Sequence[Change]) -> bytes:
        if edits[0][0] % 16 < 8:
            return change_bytes(content, edits)
        return gzip.compress(change(gzip.decompress(content), edits), 1, mtime=0)

    return changed


def inside_mat(content: bytes, edits: Sequence[Change]) -> bytes:
    """Change the variables of a compressed MATLAB 5 file, or the file itself."""
    if edits[0][0] % 16 < 4:
        return change_bytes(content, edits)
    size = struct.unpack("<I", content[132:136])[0]
    packed = zlib.compress(change_bytes(zlib.decompress(content[136 : 136 + size]), edits))
    return content[:132] + struct.pack("<I", len(packed)) + packed + content[136 + size :]


def inside_zip(content: bytes, edits: Sequence[Change]) -> bytes:
    """Change a member of an archive (checksums stay right), its name or compression, or the archive itself."""
    kind, where, value = edits[0]
    if kind % 16 < 4:
        return change_bytes(content, edits)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(member, archive.read(member)) for member in archive.infolist()]
    target = where % len(members)
    pickles = [i for i, (member, _) in enumerate(members) if member.filename.endswith(".pkl")]
    target = pickles[0] if pickles and where % 2 else target
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED if kind % 16 == 4 else zipfile.ZIP_STORED) as archive:
        for i, (member, data) in enumerate(members):
            name = member.filename
            if i == target:
                if kind % 16 == 5:
                    continue
                name += "x" if kind % 16 == 6 else ""
                data = b"\0" * (1 << 22) if kind % 16 == 7 and value % 8 == 0 else change_bytes(data, edits[-2:])
            archive.writestr(name, data)
    return out.getvalue()


def inside_safetensors(content: bytes, edits: Sequence[Change]) -> bytes:
    """Change fields of the header (its length stays right), or the file itself."""
    if edits[0][0] % 16 < 4:
        return change_bytes(content, edits)
    size = struct.unpack("<Q", content[:8])[0]
    header, rest = json.loads(content[8 : 8 + size]), content[8 + size :]
    for kind, where, value in edits:
        name = sorted(header)[where % len(header)]
        entry, number = header[name], NUMBERS[value % len(NUMBERS)]
        match kind // 16 % 7:
            case 0:
                entry["dtype"] = ("F8_E4M3", "F8_E5M2", "F4", "BF16", "F16", "C64", "BOOL", "I64", "XX", 3)[value % 10]
            case 1:
                entry["shape"] = [number] * (value % 4)
            case 2:
                entry["data_offsets"] = [value % 64, number]
            case 3:
                del entry[sorted(entry)[value % len(entry)]]
                break
            case 4:
                header[TOKENS[value % len(TOKENS)]] = dict(entry)
            case 5:
                header[name] = [entry, number, TOKENS[value % len(TOKENS)]][value % 3]
                break
            case _:
                rest = rest[: value % (len(rest) + 1)]
    packed = json.dumps(header).encode()
    return struct.pack("<Q", len(packed)) + packed + rest


def inside_png(content: bytes, edits: Sequence[Change]) -> bytes:
    """Change the data of a chunk (its checksum stays right), repeat or drop one, or change the file itself."""
    kind, where, value = edits[0]
    if kind % 16 < 4:
        return change_bytes(content, edits)
    chunks: list[tuple[bytes, bytes]] = []
    at = 8
    while at < len(content):
        size = struct.unpack(">I", content[at : at + 4])[0]
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + size]))
        at += size + 12
    target = where % len(chunks)
    name, data = chunks[target]
    match kind % 16:
        case 4:
            del chunks[target]
        case 5:
            chunks.insert(value % len(chunks), chunks[target])
        case 6 if name == b"IDAT":
            chunks[target] = (name, zlib.compress(change_bytes(zlib.decompress(data), edits)))
        case 7:
            chunks[0] = (b"IHDR", struct.pack(">II", NUMBERS[value % 16], NUMBERS[where % 16]) + chunks[0][1][8:])
        case _:
            chunks[target] = (name, change_bytes(data, edits))
    packed = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks]
    return content[:8] + b"".join(packed)
