package activity

import (
	"encoding/json"
	"fmt"
	"math"
)

// Slots counts the server's slots.
type Slots struct {
	Max      int `json:"max_connections"`
	Reserved int `json:"reserved"` // for superusers and for roles with pg_use_reserved_connections
	Used     int `json:"used"`     // by client backends, including our own
}

// Usable returns the number of slots that an ordinary role can get.
func (s Slots) Usable() int { return s.Max - s.Reserved }

// Free returns how many slots an ordinary role could still get.
func (s Slots) Free() int { return max(0, s.Usable()-s.Used) }

// Utilisation returns the share of the usable slots that are used, in percent. It is over 100 if reserved ones are used
// too.
func (s Slots) Utilisation() float64 { return 100 * float64(s.Used) / float64(max(1, s.Usable())) }

// UsedUsable returns how many of the usable slots are used, at most all of them: sessions in reserved slots take none
// of them.
func (s Slots) UsedUsable() int { return min(s.Used, s.Usable()) }

// Brief returns the slots in a few words.
func (s Slots) Brief() string {
	return fmt.Sprintf("%d of %d usable used (%.0f %%)", s.UsedUsable(), s.Usable(), min(100, s.Utilisation()))
}

// String returns the slots as a sentence.
func (s Slots) String() string {
	text := fmt.Sprintf("%d of %d usable slots are used (%.0f %%), %s free",
		s.UsedUsable(), s.Usable(), min(100, s.Utilisation()), count(s.Free(), "is", "are"))
	if more := s.Used - s.UsedUsable(); more > 0 {
		text += fmt.Sprintf("; %d of %d reserved ones are used too", more, s.Reserved)
	}
	return text
}

// MarshalJSON adds the derived figures.
func (s Slots) MarshalJSON() ([]byte, error) {
	type plain Slots
	return json.Marshal(struct {
		plain
		Usable      int     `json:"usable"`
		Free        int     `json:"free"`
		Utilisation float64 `json:"utilisation_percent"`
	}{plain(s), s.Usable(), s.Free(), math.Round(10*s.Utilisation()) / 10})
}
