package web_test

import (
	"math"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// WCAG 2.2 wants 4.5:1 between text and what is behind it, and 3:1 around what can be used.
func TestTheColoursCanBeToldApartInTheLightAndInTheDark(t *testing.T) {
	css := get(t, someFiles(), http.MethodGet, "/static/web/ddtb.css").Body.String()
	before, after, ok := strings.Cut(css, "@media (prefers-color-scheme: dark)")
	if !ok {
		t.Fatal("the stylesheet has no dark colours")
	}
	light := tokens(before)
	dark := tokens(after)
	for name := range light {
		if _, ok := dark[name]; !ok {
			t.Errorf("%s has no dark colour", name)
		}
	}
	for scheme, colours := range map[string]map[string]float64{"light": light, "dark": dark} {
		for _, tt := range []struct {
			front, backs string
			want         float64
		}{
			{"ink", "paper surface sunken accent-wash good-wash warn-wash bad-wash", 7},
			{"ink-soft", "paper surface sunken", 4.5},
			{"accent", "paper surface accent-wash", 4.5},
			{"accent-strong", "paper surface accent-wash", 4.5},
			{"on-accent", "accent accent-strong", 4.5},
			{"good", "surface good-wash", 4.5},
			{"warn", "surface warn-wash", 4.5},
			{"bad", "paper surface bad-wash", 4.5},
			{"line-strong", "paper surface", 3},
		} {
			for back := range strings.FieldsSeq(tt.backs) {
				if got := contrast(colours[tt.front], colours[back]); got < tt.want {
					t.Errorf("%s: %s on %s is %.2f:1, want %v:1", scheme, tt.front, back, got, tt.want)
				}
			}
		}
	}
}

// tokens are the luminances of the colours that css names.
func tokens(css string) map[string]float64 {
	m := map[string]float64{}
	for _, match := range regexp.MustCompile(`--([a-z-]+): #([0-9a-f]{6});`).FindAllStringSubmatch(css, -1) {
		m[match[1]] = luminance(match[2])
	}
	return m
}

func luminance(hex string) float64 {
	var sum float64
	for i, weight := range []float64{0.2126, 0.7152, 0.0722} {
		n, _ := strconv.ParseUint(hex[2*i:2*i+2], 16, 8)
		v := float64(n) / 255
		if v <= 0.04045 {
			v /= 12.92
		} else {
			v = math.Pow((v+0.055)/1.055, 2.4)
		}
		sum += weight * v
	}
	return sum
}

func contrast(a, b float64) float64 { return (max(a, b) + 0.05) / (min(a, b) + 0.05) }
