package embedded_test

func commitUntilKilled() {}
