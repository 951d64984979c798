package db

import (
	"fmt"
	"strconv"
	"strings"
)

// Position is a position in the primary's write-ahead log (LSN). 0 is before every other position.
type Position uint64

// Unknown is after every other position. No replica has reached it, so a caller with this position reads from the
// primary.
const Unknown = ^Position(0)

// String returns PostgreSQL's form, "16/B374D848".
func (p Position) String() string { return fmt.Sprintf("%X/%X", uint64(p)>>32, uint64(p)&(1<<32-1)) }

// ParsePosition parses the output of String: two hexadecimal numbers of at most 8 digits.
func ParsePosition(text string) (p Position, ok bool) {
	high, low, _ := strings.Cut(text, "/")
	if len(text) > len("FFFFFFFF/FFFFFFFF") || strings.ContainsAny(text, "+-_") {
		return 0, false
	}
	h, err := strconv.ParseUint(high, 16, 32)
	if err != nil {
		return 0, false
	}
	l, err := strconv.ParseUint(low, 16, 32)
	return Position(h<<32 | l), err == nil
}
