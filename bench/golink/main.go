// Command golink makes DEST a hardlinked copy of the directory SOURCE, many files at a time.
//
// It stands for the first form of dateilager's cache daemon, which hardlinked within the RPC: one goroutine walks
// and makes the directories, a bounded group of workers calls link(2) by full path. Files are counted, directories
// keep their modes. It is here to be measured against, not to be used.
//
//	golink [-workers N] SOURCE DEST
package main

import (
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
)

type pair struct{ source, dest string }

func main() {
	workers := flag.Int("workers", 4*runtime.NumCPU(), "goroutines that link")
	flag.Parse()
	if flag.NArg() != 2 {
		fmt.Fprintln(os.Stderr, "usage: golink [-workers N] SOURCE DEST")
		os.Exit(2)
	}
	files, err := link(flag.Arg(0), flag.Arg(1), *workers)
	if err != nil {
		fmt.Fprintln(os.Stderr, "golink:", err)
		os.Exit(1)
	}
	fmt.Println(files)
}

// link returns how many files it linked, or the first error.
func link(source, dest string, workers int) (int64, error) {
	var (
		files   atomic.Int64
		group   sync.WaitGroup
		once    sync.Once
		failure error
	)
	fail := func(err error) { once.Do(func() { failure = err }) }
	pairs := make(chan pair, 1024)
	for range workers {
		group.Add(1)
		go func() {
			defer group.Done()
			for each := range pairs {
				if err := os.Link(each.source, each.dest); err != nil {
					fail(err)
					continue
				}
				files.Add(1)
			}
		}()
	}
	err := walk(source, dest, pairs)
	close(pairs)
	group.Wait()
	if err != nil {
		fail(err)
	}
	return files.Load(), failure
}

// walk makes the directories and sends every file to be linked.
func walk(source, dest string, pairs chan<- pair) error {
	return filepath.WalkDir(source, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(source, path)
		if err != nil {
			return err
		}
		target := filepath.Join(dest, relative)
		if !entry.IsDir() {
			pairs <- pair{path, target}
			return nil
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		return os.Mkdir(target, info.Mode().Perm())
	})
}
