package mitm

import (
	"bytes"
	"fmt"
	"testing"

	"golang.org/x/net/http2"
)

// FuzzFrames walks over any bytes, whole and in pieces: both see the same frames.
func FuzzFrames(f *testing.F) {
	var b bytes.Buffer
	fr := http2.NewFramer(&b, nil)
	fr.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1 << 20})
	fr.WriteSettingsAck()
	fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x82}, EndHeaders: true})
	fr.WriteData(1, true, make([]byte, 300))
	fr.WriteRSTStream(1, http2.ErrCodeProtocol)
	fr.WriteGoAway(1, http2.ErrCodeEnhanceYourCalm, []byte("calm"))
	f.Add(b.Bytes(), uint8(1))
	f.Add(b.Bytes(), uint8(7))
	f.Add([]byte{0, 0, 0}, uint8(2))
	f.Fuzz(func(t *testing.T, b []byte, size uint8) {
		collect := func(step int) (out string) {
			w := frames{seen: func(typ byte, stream uint32, payload []byte) { out += fmt.Sprintln(typ, stream, payload) }}
			for rest := b; len(rest) > 0; rest = rest[min(step, len(rest)):] {
				w.walk(rest[:min(step, len(rest))])
			}
			return out
		}
		if whole, cut := collect(len(b)+1), collect(int(size)+1); whole != cut {
			t.Errorf("whole:\n%s\nin pieces of %d:\n%s", whole, int(size)+1, cut)
		}
	})
}

// TestFrames holds the walk to the frames that a framer wrote.
func TestFrames(t *testing.T) {
	var b bytes.Buffer
	fr := http2.NewFramer(&b, nil)
	fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 5, BlockFragment: []byte{0x82}, EndHeaders: true})
	fr.WriteData(5, true, make([]byte, 20))
	fr.WriteSettingsAck()
	fr.WriteRSTStream(5, http2.ErrCodeProtocol)
	var got string
	w := frames{seen: func(typ byte, stream uint32, payload []byte) { got += fmt.Sprintln(typ, stream, payload) }}
	w.walk(b.Bytes())
	want := "1 5 [130]\n0 5 [0 0 0 0 0 0 0 0]\n4 0 []\n3 5 [0 0 0 1]\n"
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}
