package activity

import (
	"encoding/json"
	"fmt"
	"math"
)

// Slots is how the server's slots stand.
type Slots struct {
	Max      int `json:"max_connections"`
	Reserved int `json:"reserved"` // for superusers and for roles with pg_use_reserved_connections
	Used     int `json:"used"`     // by client backends, our own among them
}

// Usable slots are those that an ordinary role can get.
func (s Slots) Usable() int { return s.Max - s.Reserved }

// Free is how many an ordinary role could still get.
func (s Slots) Free() int { return max(0, s.Usable()-s.Used) }

// Utilisation is the share of the usable slots that are used, in percent; over 100 when reserved ones are too.
func (s Slots) Utilisation() float64 { return 100 * float64(s.Used) / float64(max(1, s.Usable())) }

// InReserved is how many of the reserved slots are used.
func (s Slots) InReserved() int { return max(0, s.Used-s.Usable()) }

// UsedUsable is how many of the usable slots are used: never more than there are, for one who looks through a reserved
// slot takes none of them.
func (s Slots) UsedUsable() int { return min(s.Used, s.Usable()) }

// Brief is how they stand, in a few words.
func (s Slots) Brief() string {
	return fmt.Sprintf("%d of %d usable used (%.0f %%)", s.UsedUsable(), s.Usable(), min(100, s.Utilisation()))
}

// String is how they stand, in a sentence.
func (s Slots) String() string {
	text := fmt.Sprintf("%d of %d usable slots are used (%.0f %%), %d are free",
		s.UsedUsable(), s.Usable(), min(100, s.Utilisation()), s.Free())
	if s.InReserved() > 0 {
		text += fmt.Sprintf("; %d of %d reserved ones are used too", s.InReserved(), s.Reserved)
	}
	return text
}

// MarshalJSON adds what follows from the fields.
func (s Slots) MarshalJSON() ([]byte, error) {
	type plain Slots
	return json.Marshal(struct {
		plain
		Usable      int     `json:"usable"`
		Free        int     `json:"free"`
		Utilisation float64 `json:"utilisation_percent"`
	}{plain(s), s.Usable(), s.Free(), math.Round(10*s.Utilisation()) / 10})
}
