"""Odd spellings of what frames a body: one reader sees through each of them, another does not."""

#: Stands for a length.
SIZE = b"@"

#: What a lenient reader may take for the end of a line.
BREAKS = (
    *(b"\n", b"\r", b"\r\r", b"\n\r", b"\r\r\n", b"\x0b", b"\x0c", b"\x00", b"\x1c", b"\x85"),
    *(b" \n", b"\t\n", b" \r", b"\xe2\x80\xa8", b"\xe5\x98\x8d\xe5\x98\x8a", b"%0d%0a"),
)
#: What it may take for space, or for nothing.
BLANKS = (b" ", b"\t", b"\x0b", b"\x0c", b"\x00", b"\x1f", b"\x7f", b"\x85", b"\xa0", b"\r", b"\n")

#: Between a field's name and its value.
SEPARATORS = (
    *(b":", b": ", b":  ", b":\t", b": \t ", b" : ", b"\t: ", b":: ", b" ", b"=", b";", b": : "),
    *(b":" + blank for blank in BLANKS[2:]),
    *(b":\r\n ", b":\r\n\t", b":\n ", b":\r ", b"\r\n : ", b"\r\n: "),
)

#: Values of `Transfer-Encoding`.
CODINGS = (
    *(b"chunked", b"Chunked", b"CHUNKED", b"cHuNkEd", b"xchunked", b"chunkedx", b"chunke", b""),
    *(b"identity", b"chunked, identity", b"identity, chunked", b"chunked, chunked", b"chunked,"),
    *(b",chunked", b", ,chunked", b"gzip", b"gzip, chunked", b"chunked, gzip", b"deflate,chunked"),
    *(b"compress, chunked", b"x-gzip, chunked", b"chunked;q=1", b"chunked; q=0", b"chunked=1"),
    *(b'"chunked"', b"'chunked'", b"(chunked)", b"[chunked]", b"chunked chunked", b"chunked gzip"),
    *(b"chunked;a,chunked", b"chu nked", b"chu\tnked", b"chu\r\n nked", b"x, chunked", b"cow"),
    *(b"trailers", b"none", b"0", b"%63hunked", b"=?utf-8?q?chunked?=", b"\xefchunked"),
    *("chun\u212aed".encode(), "\uff43hunked".encode(), "\ufeffchunked".encode(), b"ch\xfcnked"),
    *(blank + b"chunked" for blank in BLANKS),
    *(b"chunked" + blank for blank in BLANKS),
    *(b"chunked\r\n ", b"chunked\r\n\t", b"\r\n chunked", b"identity\r\n chunked"),
    *(b"a\nb: chunked", b"a\rb: chunked"),
)

_OTHER_DIGITS = ("\u0662".encode(), "\uff12".encode(), "\xb2".encode(), "\u09e8".encode(), b"\xb2")
#: Values of `Content-Length`.
LENGTHS = (
    *(b"@", b"+@", b"-@", b"0@", b"00000000@", b"-0", b"+0", b"0", b"00", b"1", b"@.0", b"@e0"),
    *(b"@,@", b"@, @", b"@,", b",@", b"@, 0", b"0, @", b"@ @", b"@ 0", b"@;", b"@;a=b", b'"@"'),
    *(b"0x@", b"0o@", b"0b1", b"@_", b"_@", b"0_@", b"@h", b"@x", b"a", b"", b"NaN", b"inf"),
    *(b"@#", b"1e2", b"9" * 15, b"9" * 19, b"9" * 400, b"9" * 5000, b"4294967296", b"4294967298"),
    *(b"18446744073709551616", b"18446744073709551618", b"-18446744073709551614", b"@\xb2"),
    *(b"%32", b"@\r\n ", b"\r\n @", b"@\r\n 0"),
    *_OTHER_DIGITS,
    *(b"@" + blank for blank in BLANKS),
    *(blank + b"@" for blank in BLANKS),
)

#: Lines before a chunk.
CHUNK_LINES = (
    *(b"@", b"+@", b"-@", b"0@", b"000000@", b"0" * 14 + b"@", b"0" * 40 + b"@", b"0x@", b"0X@"),
    *(b"x@", b"@h", b"@g", b"@_", b"_@", b"0_@", b"@.", b"@.0", b"@,", b"@,@", b"@ @", b"@:"),
    *(b"@#", b"@ a", b"@\\", b"@/0", b'"@"', b"", b"-0", b"+0", b"0", b"00", b"-1", b"g", b"@\xb2"),
    *(b"ffffffff", b"10000000@", b"1000000000000000@", b"7fffffffffffffff", b"ffffffffffffffff"),
    *(b"fffffffffffffffe", b"@;", b"@; ", b"@;a", b"@;a=b", b'@;a="b"', b'@;a="b;c"', b"@ ;a"),
    *(b"@\t;\ta", b"@;a = b", b"@;a=", b"@;=b", b'@;a="', b'@;a="b', b'@;a="\\"', b'@;a="\\""'),
    *(b"@;;", b"@;a;b=c;d", b"@;a b", b"@;a=b c", b"@;\xff", b"@;a=\xff", b"@;a;", b"a;", b"@ ; 0"),
    *(b"@;@", b"@;chunked", b"@;Content-Length=0", b"@;" + b"a" * 3000, b"@;" + b"a" * 9000),
    *_OTHER_DIGITS,
    *(b"@" + blank for blank in BLANKS),
    *(blank + b"@" for blank in BLANKS),
    *(b"@;a" + blank for blank in BLANKS),
    *(b"@;a" + blank + b"b" for blank in BLANKS),
    *(b"@;" + end + b"{}" for end in BREAKS),
    *(b"@;a=" + end for end in BREAKS),
)

#: Lines after the last chunk.
TRAILERS = (
    *(b"Content-Length: 0", b"content-length: 5", b"Transfer-Encoding: chunked", b"Host: other"),
    *(b"Authorization: x", b"TE: trailers", b"Trailer: x", b"X: y", b"X:", b"X : y", b" X: y"),
    *(b"X", b": y", b"X: a\r\n b", b"X: \x00", b"X: a\nContent-Length: 5", b"X: a\rY: b"),
    *(b"Content-Length : 5", b"Content_Length: 5", b"Transfer-Encoding\x0b: chunked", b"\n", b"\r"),
    *(b"X: \x7f", b"X\x00: y", b"0", b"5\r\nhello\r\n0", b"X: y\n", b"X: y\r", b"\xc3\xa9: y"),
    *(b"X\t: y", b"POST /v1/completions HTTP/1.1\r\nHost: other"),
)

#: What may stand behind a request's target.
VERSIONS = (
    *(b" HTTP/1.0", b" HTTP/0.9", b" HTTP/1.2", b" HTTP/2.0", b" HTTP/1.01", b" HTTP/1.1 "),
    *(b" http/1.1", b" HTTP/11", b" HTTP/1,1", b" HTTP/1.1\t", b"  HTTP/1.1", b"\tHTTP/1.1"),
    *(b" HTTP/1.1 HTTP/1.1", b" HTTP/\xb9.1", b" HTTP/ 1.1", b"", b" HTTP/1.1;a", b" ICY/1.1"),
)

#: Fields that make others drop, wait for, or switch what frames the body.
ASIDES = (
    *(b"Connection: close", b"Connection: keep-alive", b"Connection: close, x", b"Connection: ,"),
    *(b"Connection: Content-Length", b"Connection: Transfer-Encoding", b"Connection: Host"),
    *(b"Connection: keep-alive, close", b"Connection: close, Content-Length", b"Connection: TE"),
    *(b"Connection: Upgrade", b"Connection: Close ", b"Connection: x, Transfer-Encoding, close"),
    *(b"Expect: 100-continue", b"Expect: 100-Continue", b"Expect: 100-continue ", b"Expect: x"),
    *(b"Expect: y 100-continue", b"Expect: 100-continue, x", b"Expect:\t100-continue", b"Expect:"),
    *(b"Upgrade: h2c", b"Upgrade: websocket", b"TE: trailers", b"Trailer: Content-Length"),
    *(b"Proxy-Connection: close", b"Keep-Alive: max=1", b"Content-Encoding: chunked"),
)


def names(name: bytes) -> list[bytes]:
    """A field's name as another reader might take it for it."""
    return [
        *(name.lower(), name.upper(), name.swapcase(), name.replace(b"-", b"_"), b"X-" + name),
        *(name.replace(b"-", b" "), name.replace(b"-", b""), name.replace(b"-", b"\xad"), name[1:]),
        *(name.replace(b"n", b"\xd5\xb8"), name.replace(b"e", b"\xe9"), name + b"s", b":" + name),
        *(b"X: a" + end + name for end in BREAKS),
        *(name + blank for blank in BLANKS),
        *(blank + name for blank in BLANKS),
    ]
