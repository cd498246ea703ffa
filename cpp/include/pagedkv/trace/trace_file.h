#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "pagedkv/hash/xxh3.h"

/// A file of records, each with a checksum over itself and all before it. docs/op_traces.md has the
/// bytes.
namespace pagedkv {

struct CloseFile {
  void operator()(std::FILE* file) const { std::fclose(file); }
};
using File = std::unique_ptr<std::FILE, CloseFile>;

/// Joins records to a chain of checksums: one that is damaged, missing or doubled is noticed.
class ChecksumChain {
 public:
  ChecksumChain();

  /// Of a record's length, so that a damaged one is not taken for the end of the file.
  std::uint32_t guard_of(std::uint32_t length) const;

  /// Of the next record, which is added to the chain.
  std::uint64_t add(std::span<const std::byte> payload);

 private:
  Xxh3Digest last_;
  std::vector<std::byte> scratch_;
};

/// Writes a trace.
class TraceWriter {
 public:
  /// Begins the file anew. With `flush_each`, a record is handed to the system when it is written.
  ///
  /// Throws `std::system_error` if the file cannot be written.
  TraceWriter(const std::string& path, bool flush_each);

  /// Adds a record. Does nothing once writing has failed, which `close` tells.
  void write(std::span<const std::byte> payload);

  /// Throws `std::system_error` if anything could not be written.
  void close();

 private:
  void put(std::span<const std::byte> bytes);

  File file_;
  std::string path_;
  bool flush_each_;
  int error_ = 0;
  ChecksumChain chain_;
};

/// Reads a trace that may be cut off, damaged, or none.
class TraceReader {
 public:
  /// Throws `std::system_error` if the file cannot be read, `std::invalid_argument` if it is no
  /// trace or of another version.
  TraceReader(const std::string& path, const char* operation);

  /// The next record, valid until the next call; nothing at the end of the file, and where it ends
  /// in the middle of a record.
  ///
  /// Throws `std::invalid_argument` for a damaged record.
  std::optional<std::span<const std::byte>> next();

  /// Where the record that `next` gave begins, in bytes.
  std::uint64_t offset() const { return offset_; }

  /// Whether the file ended in the middle of a record.
  bool is_cut() const { return is_cut_; }

 private:
  bool get(std::span<std::byte> bytes);

  File file_;
  const char* operation_;
  std::uint64_t size_ = 0;
  std::uint64_t begin_ = 0;   // of the record
  std::uint64_t offset_ = 0;  // of its payload
  std::uint64_t next_ = 0;
  bool is_cut_ = false;
  ChecksumChain chain_;
  std::vector<std::byte> payload_;
};

}  // namespace pagedkv
