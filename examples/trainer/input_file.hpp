// SPDX-License-Identifier: MIT
#pragma once

#include <fcntl.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "descriptor.hpp"

// Files as their readers see them: bytes, one after another.

namespace trainer {

// What every reader of this file throws: "FILE: reason", in one line.
[[noreturn]] inline void fail_file(const std::filesystem::path& path, const std::string& reason) {
  throw std::runtime_error(path.string() + ": " + reason);
}

// What a file is that is often found in the place of another one, by what it begins with; null where it is none of these.
inline const char* mistaken_file(std::string_view begin) {
  if (begin.empty()) return "is empty";
  if (begin.substr(0, 42) == "version https://git-lfs.github.com/spec/v1") {
    return "is a Git LFS pointer, not the file itself: `git lfs pull` fetches that";
  }
  std::string text;
  for (const char c : begin.substr(0, 256)) {
    const auto byte = static_cast<unsigned char>(c);
    // White space and a byte order mark may come first.
    const bool is_ignored = std::isspace(byte) != 0 || byte == 0xef || byte == 0xbb || byte == 0xbf;
    if (!text.empty() || !is_ignored) text += static_cast<char>(std::tolower(byte));
  }
  for (const char* tag : {"<!doctype html", "<html", "<head", "<?xml"}) {
    if (text.compare(0, std::strlen(tag), tag) == 0) {
      return "is a web page, as a server sends it instead of a file that it does not give out";
    }
  }
  return nullptr;
}

// Where a reader's bytes come from.
class byte_source {
 public:
  virtual ~byte_source() = default;
  // Reads up to `bytes`; fewer only at the end.
  virtual std::size_t read(std::uint8_t* out, std::size_t bytes) = 0;
};

// A file, a pipe, or with the path "-" standard input; unpacked where it is gzipped. Of gzip data several members may follow
// each other, and nothing else may follow them. Throws where there is no such file, or mistaken_file knows what it is instead.
class input_file final : public byte_source {
 public:
  explicit input_file(const std::filesystem::path& path)
      : path_(path == "-" ? "standard input" : path),
        file_(path == "-" ? dup(STDIN_FILENO) : open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (file_.number() < 0) fail_file(path_, std::strerror(errno));
    need(2);
    if (is_gzip_begin()) {
      stream_.reset(new z_stream());
      constexpr int gzip_only = 16 + MAX_WBITS;
      if (inflateInit2(stream_.get(), gzip_only) != Z_OK) fail_file(path_, "zlib cannot be started");
    }
    constexpr std::size_t enough = 512;
    if (const char* const reason = mistaken_file(begin(enough))) fail_file(path_, reason);
  }
  input_file(input_file&&) noexcept = default;

  // The path, or what stands for it in messages.
  const std::filesystem::path& path() const { return path_; }

  // What the content begins with, up to `bytes` of it. To be asked before anything is read; it stays to be read.
  std::string_view begin(std::size_t bytes) {
    if (ahead_.size() < bytes) {
      const std::size_t have = ahead_.size();
      ahead_.resize(bytes);
      ahead_.resize(have + unpacked(ahead_.data() + have, bytes - have));
    }
    return {reinterpret_cast<const char*>(ahead_.data()), std::min(bytes, ahead_.size())};
  }

  std::size_t read(std::uint8_t* out, std::size_t bytes) override {
    const std::size_t kept = std::min(bytes, ahead_.size() - ahead_done_);
    std::copy_n(ahead_.data() + ahead_done_, kept, out);
    ahead_done_ += kept;
    return kept + unpacked(out + kept, bytes - kept);
  }

 private:
  struct end_inflate {
    void operator()(z_stream* stream) const {
      inflateEnd(stream);
      delete stream;
    }
  };

  std::size_t available() const { return packed_.size() - packed_done_; }
  bool is_gzip_begin() const {
    return available() >= 2 && packed_[packed_done_] == 0x1f && packed_[packed_done_ + 1] == 0x8b;
  }

  // Makes so many bytes of the file available, or all that are left.
  void need(std::size_t bytes) {
    constexpr std::size_t chunk = 1u << 16;
    if (available() >= bytes) return;
    packed_.erase(packed_.begin(), packed_.begin() + static_cast<std::ptrdiff_t>(packed_done_));
    packed_done_ = 0;
    while (packed_.size() < bytes) {
      const std::size_t have = packed_.size();
      packed_.resize(have + chunk);
      const ssize_t got = ::read(file_.number(), packed_.data() + have, chunk);
      const int error = errno;
      packed_.resize(have + static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
      if (got < 0 && error == EINTR) continue;
      if (got < 0) fail_file(path_, std::strerror(error));
      if (got == 0) return;
    }
  }

  std::size_t unpacked(std::uint8_t* out, std::size_t bytes) {
    std::size_t done = 0;
    while (done < bytes && !ended_) {
      need(1);
      if (!stream_) {
        const std::size_t next = std::min(bytes - done, available());
        std::copy_n(packed_.data() + packed_done_, next, out + done);
        packed_done_ += next;
        done += next;
        ended_ = next == 0;
        continue;
      }
      if (available() == 0) fail_file(path_, "truncated gzip data");
      constexpr std::size_t most = 1u << 30;
      const auto room = static_cast<uInt>(std::min(bytes - done, most));
      stream_->next_in = packed_.data() + packed_done_;
      stream_->avail_in = static_cast<uInt>(available());
      stream_->next_out = out + done;
      stream_->avail_out = room;
      const int code = inflate(stream_.get(), Z_NO_FLUSH);
      packed_done_ = packed_.size() - stream_->avail_in;
      done += room - stream_->avail_out;
      if (code == Z_STREAM_END) {
        need(2);
        ended_ = available() == 0;
        if (!ended_ && !is_gzip_begin()) fail_file(path_, "trailing bytes after its gzip data");
        if (!ended_) inflateReset(stream_.get());
      } else if (code != Z_OK && code != Z_BUF_ERROR) {
        const char* const message = stream_->msg != nullptr ? stream_->msg : "zlib";
        fail_file(path_, std::string("corrupt gzip data (") + message + ")");
      }
    }
    return done;
  }

  std::filesystem::path path_;
  descriptor file_;
  std::vector<std::uint8_t> packed_, ahead_;  // bytes of the file, and of its content
  std::size_t packed_done_ = 0, ahead_done_ = 0;
  std::unique_ptr<z_stream, end_inflate> stream_;  // of a gzipped file
  bool ended_ = false;
};

}  // namespace trainer
