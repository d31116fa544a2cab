//! A gzip stream without an end: what is stored is read back by zlib as it comes, and `Accept-Encoding` is obeyed.
use fanwire_core::http::gzip::{EMPTY_BLOCK, HEADER, accepts_gzip, contents, split_piece, stored_bytes, write_stored};
use fanwire_core::http::parse_head;
use flate2::{Decompress, FlushDecompress, Status};

#[test]
fn what_is_stored_is_read_back_as_it_comes() {
    let all: Vec<u8> = (0..300_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut stream = Decompress::new(false);
    let mut pieces = Vec::new();
    let sizes = [1, 0, 63, 65_534, 65_535, 65_536, 131_070, 131_071, 300_000];
    for size in sizes {
        let start = pieces.len();
        write_stored(&mut pieces, &all[..size]);
        let piece = &pieces[start..];
        assert_eq!(piece.len(), stored_bytes(size));
        assert!(piece.ends_with(&EMPTY_BLOCK));
        let mut out = Vec::with_capacity(size + 1);
        let status = stream.decompress_vec(piece, &mut out, FlushDecompress::Sync).expect("DEFLATE");
        assert!(status == Status::Ok && out == all[..size], "{size}");
        assert_eq!(contents(piece).flatten().copied().collect::<Vec<u8>>(), out);
    }
    let mut rest = &pieces[..];
    for size in sizes {
        let (piece, behind) = split_piece(rest).expect("it is whole");
        assert_eq!(piece.len(), stored_bytes(size));
        assert!(split_piece(&piece[..piece.len() - 1]).is_none());
        rest = behind;
    }
    assert!(rest.is_empty() && split_piece(rest).is_none());
    assert_eq!(HEADER[..4], [0x1f, 0x8b, 8, 0]);
}

#[test]
fn who_wants_it_no_less_than_nothing_gets_it() {
    let accepts = |fields: &[&str]| {
        let lines: String = fields.iter().map(|field| format!("Accept-Encoding: {field}\r\n")).collect();
        let request = format!("GET / HTTP/1.1\r\nHost: x\r\n{lines}\r\n");
        accepts_gzip(&parse_head(request.as_bytes(), 4_096).expect("a head").expect("a whole one").0)
    };
    let yes = ["gzip", "br, gzip;q=0.1", "X-GZIP", "*", "gzip;q=1.000", "identity;q=0, *;q=0.2", "identity, gzip"];
    let no = [
        "",
        "br",
        "gzip;q=0",
        "gzip;q=0.000,*",
        "*;q=0",
        "identity;q=0.2,gzip;q=0.1",
        "gzip;q=2",
        "gzip;q=",
        "gzip;q=.5",
    ];
    assert_eq!(yes.map(|field| accepts(&[field])), [true; 7]);
    assert_eq!(no.map(|field| accepts(&[field])), [false; 9]);
    assert!(accepts(&["br", "deflate, gzip"]) && !accepts(&[]));
}
