package db

import (
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm" // NFKC; pgx depends on this module already
)

// saslprep prepares a password for SCRAM as RFC 4013 specifies and libpq does: spaces become the ASCII space, invisible
// characters are dropped, and the rest is normalised to NFKC. A password with control characters is used unchanged, as
// in libpq. pgx uses RFC 8265 instead, which keeps "²" where PostgreSQL has stored "2".
func saslprep(password string) string {
	mapped := strings.Map(func(r rune) rune {
		switch {
		case r == 0x00AD, r == 0x034F, r == 0x1806, r >= 0x180B && r <= 0x180D, r >= 0x200B && r <= 0x200D,
			r == 0x2060, r >= 0xFE00 && r <= 0xFE0F, r == 0xFEFF: // RFC 3454, table B.1
			return -1
		case r > 0x7F && unicode.Is(unicode.Zs, r): // table C.1.2
			return ' '
		}
		return r
	}, password)
	prepared := norm.NFKC.String(mapped)
	for _, r := range prepared {
		if unicode.IsControl(r) || unicode.Is(unicode.Co, r) || r == unicode.ReplacementChar {
			return password
		}
	}
	if prepared == "" {
		return password
	}
	return prepared
}
