module goldlink.dev/bench/golink

go 1.26
