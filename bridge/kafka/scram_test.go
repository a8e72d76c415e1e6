package kafka

import (
	"testing"

	"github.com/IBM/sarama"
	"github.com/stretchr/testify/require"
)

// TestSCRAM has the example of RFC 7677, section 3.
func TestSCRAM(t *testing.T) {
	const (
		serverFirst = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
		serverFinal = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
	)
	login := func() *scram {
		s := scramGenerator(sarama.SASLTypeSCRAMSHA256)().(*scram)
		require.NoError(t, s.Begin("user", "pencil", ""))
		s.nonce = "rOprNGfwEbeRWgbNEkqO"
		s.bare = "n=user,r=" + s.nonce
		first, err := s.Step("")
		require.NoError(t, err)
		require.Equal(t, "n,,n=user,r=rOprNGfwEbeRWgbNEkqO", first)
		return s
	}
	s := login()
	final, err := s.Step(serverFirst)
	require.NoError(t, err)
	require.Equal(t, "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=", final)
	require.False(t, s.Done())
	_, err = s.Step(serverFinal)
	require.NoError(t, err)
	require.True(t, s.Done())

	for _, bad := range []string{"", "r=other,s=W22Z,i=4096", "r=rOprNGfwEbeRWgbNEkqO,s=W22Z,i=4096", "r=rOprNGfwEbeRWgbNEkqOx,s=!,i=1", "r=rOprNGfwEbeRWgbNEkqOx,s=W22Z,i=-1"} {
		_, err := login().Step(bad)
		require.Error(t, err, bad)
	}
	for _, bad := range []string{"v=AAAA", "e=invalid-proof", ""} {
		s := login()
		_, err := s.Step(serverFirst)
		require.NoError(t, err)
		_, err = s.Step(bad)
		require.Error(t, err, bad)
	}
}

func TestSCRAMEscapesTheName(t *testing.T) {
	s := &scram{}
	require.NoError(t, s.Begin("a=b,c", "", ""))
	require.Contains(t, s.bare, "n=a=3Db=2Cc,r=")
}
