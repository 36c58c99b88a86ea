package inspect

import "github.com/exitgate/exitgate"

// maxHello bounds a ClientHello, its four-byte header included. Post-quantum key shares make hellos of 2 KiB; four
// times sixteen is room for what may come, and crypto/tls takes no more either.
const maxHello = 64 << 10

// maxRecords bounds over how many TLS records a hello may be spread.
const maxRecords = 4096

const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" // RFC 9113, section 3.4

// Sniff tells from the first bytes of a connection or tunnel what it opens with. [exitgate.ErrShort] means that
// more bytes are needed; what is told of some bytes is not changed by more of them. A ClientHello that is broken, or
// that names its server in a way that two readers could take for two names, is an *exitgate.Refusal. Sniff keeps nothing of b.
func Sniff(b []byte) (exitgate.Opening, error) {
	if len(b) == 0 {
		return exitgate.Opening{}, exitgate.ErrShort
	}
	if b[0] == 0x16 {
		return sniffTLS(b)
	}
	for _, known := range [...]struct{ start, proto string }{{"SSH-", exitgate.OpeningSSH}, {preface, exitgate.OpeningH2C}} {
		n := min(len(b), len(known.start))
		if string(b[:n]) != known.start[:n] {
			continue
		}
		if n < len(known.start) {
			return exitgate.Opening{}, exitgate.ErrShort
		}
		return exitgate.Opening{Proto: known.proto}, nil
	}
	return sniffHTTP(b)
}

// sniffHTTP looks for a method, a space and the first byte of a target ("/", "*" or an http URL; anything for
// CONNECT), so that the commands of other text protocols (EHLO, USER, NICK) are not taken for HTTP.
func sniffHTTP(b []byte) (exitgate.Opening, error) {
	const longest = 32
	unknown := exitgate.Opening{Proto: exitgate.OpeningUnknown}
	i := firstNot(b[:min(len(b), longest+1)], isToken)
	switch {
	case i < 0 && len(b) <= longest, i > 0 && i == len(b)-1 && b[i] == ' ':
		return exitgate.Opening{}, exitgate.ErrShort
	case i <= 0 || b[i] != ' ':
		return unknown, nil
	}
	switch c := b[i+1]; {
	case c == '/', c == '*', string(b[:i]) == "CONNECT" && classes[c]&isTarget != 0:
		return exitgate.Opening{Proto: exitgate.OpeningHTTP}, nil
	case lower(c) == 'h':
		const scheme = "http"
		t := b[i+1 : min(len(b), i+1+len(scheme))]
		if !fold(t, scheme[:len(t)]) {
			return unknown, nil
		}
		if len(t) < len(scheme) {
			return exitgate.Opening{}, exitgate.ErrShort
		}
		return exitgate.Opening{Proto: exitgate.OpeningHTTP}, nil
	}
	return unknown, nil
}

func sniffTLS(b []byte) (exitgate.Opening, error) {
	if len(b) > 1 && b[1] != 3 {
		return exitgate.Opening{Proto: exitgate.OpeningUnknown}, nil
	}
	msg, err := helloMessage(b)
	if err != nil {
		return exitgate.Opening{}, err
	}
	var h hello
	if why := h.parse(msg); why != "" {
		return exitgate.Opening{}, badHello("%s", why)
	}
	facts, err := h.facts()
	if err != nil {
		return exitgate.Opening{}, err
	}
	return exitgate.Opening{Proto: exitgate.OpeningTLS, TLS: facts}, nil
}

func badHello(format string, args ...any) error {
	r := exitgate.NewRefusal(400, exitgate.RuleMalformed, format, args...)
	r.Verdict.Reason = "the TLS ClientHello cannot be read: " + r.Verdict.Reason
	return r
}

// helloMessage returns the body of the ClientHello handshake message (RFC 8446, section 4) that the TLS records at
// the start of b hold together. It copies only when there is more than one record.
func helloMessage(b []byte) ([]byte, error) {
	var msg []byte
	for n := 0; ; n++ {
		frag, rest, err := record(b)
		switch {
		case n == 0:
			msg = frag
		case n == 1:
			msg = append(make([]byte, 0, 4<<10), msg...) // b is not ours to append to
			fallthrough
		default:
			msg = append(msg, frag...)
		}
		if len(msg) > 0 && msg[0] != 1 {
			return nil, badHello("the first handshake message is of type %d", msg[0])
		}
		if len(msg) >= 4 {
			want := int(msg[1])<<16 | int(msg[2])<<8 | int(msg[3])
			if want > maxHello-4 {
				return nil, badHello("it has more than %d bytes", maxHello)
			}
			if len(msg) == 4+want && err == nil {
				return msg[4:], nil
			}
			if len(msg) > 4+want {
				return nil, badHello("other bytes follow it in its record")
			}
		}
		if err != nil {
			return nil, err
		}
		if n == maxRecords {
			return nil, badHello("it is spread over more than %d records", maxRecords)
		}
		b = rest
	}
}

// record returns the fragment of the first TLS record in b (RFC 8446, section 5.1), as much of it as there is; the error is
// ErrShort when it is not whole.
func record(b []byte) (frag, rest []byte, err error) {
	switch {
	case len(b) > 0 && b[0] != 0x16:
		return nil, nil, badHello("a record of type %d stands where handshake goes on", b[0])
	case len(b) > 1 && b[1] != 3:
		return nil, nil, badHello("a record has version %d.x", b[1])
	case len(b) < 5:
		return nil, nil, exitgate.ErrShort
	}
	n := int(b[3])<<8 | int(b[4])
	if n == 0 || n > 16<<10 {
		return nil, nil, badHello("a record has %d bytes", n)
	}
	if len(b) < 5+n {
		return b[5:], nil, exitgate.ErrShort
	}
	return b[5 : 5+n], b[5+n:], nil
}
