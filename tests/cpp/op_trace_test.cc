#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include "groups.h"
#include "pagedkv/manager/config_bytes.h"
#include "pagedkv/trace/op_recorder.h"
#include "pagedkv/trace/op_replay.h"
#include "random.h"
#include "traffic.h"

namespace pagedkv {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;
using Bytes = std::vector<char>;

class OpTraceTest : public testing::Test {
 protected:
  void TearDown() override { std::filesystem::remove(path_); }

  Bytes read() const {
    std::ifstream file(path_, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  void write(const Bytes& bytes) const {
    std::ofstream file(path_, std::ios::binary | std::ios::trunc);
    file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  }

  void expect_refused(const char* text) const {
    EXPECT_THAT([&] { replay_ops(path_); }, ThrowsMessage<std::invalid_argument>(HasSubstr(text)));
  }

  // Replays what was recorded, and expects all answers to be the same.
  void expect_same(std::int64_t num_calls) const {
    const ReplayReport report = replay_ops(path_, {.check_invariants = true});
    if (report.difference) {
      ADD_FAILURE() << "op " << report.difference->op << " " << report.difference->call << "\n"
                    << report.difference->recorded << "\n"
                    << report.difference->replayed;
    }
    EXPECT_EQ(report.num_ops, num_calls);
    EXPECT_TRUE(report.was_stopped);
    EXPECT_FALSE(report.is_cut);
  }

  // Records random traffic. Returns the number of calls.
  std::int64_t record(unsigned seed, int num_steps, PageId num_pages,
                      std::vector<CacheGroupSpec> groups, const CacheManagerOptions& options = {}) {
    Traffic traffic(seed, options.prefer_contiguous);
    CacheManager manager(num_pages, groups, 48, options);
    OpRecorder recorder(manager, path_);
    for (int i = 0; i < num_steps; ++i) traffic.step(manager);
    traffic.finish(manager);
    recorder.stop();
    return recorder.num_calls();
  }

  // Writes the trace anew with other payloads, and checksums that are right.
  void rewrite(const std::function<void(std::size_t, std::vector<std::byte>&)>& change) const {
    std::vector<std::vector<std::byte>> records;
    TraceReader reader(path_, "test");
    while (const auto record = reader.next()) records.emplace_back(record->begin(), record->end());
    TraceWriter writer(path_, false);
    for (std::size_t i = 0; i < records.size(); ++i) {
      change(i, records[i]);
      writer.write(records[i]);
    }
    writer.close();
  }

  const std::string path_ =
      testing::TempDir() + testing::UnitTest::GetInstance()->current_test_info()->name() + ".trace";
};

CacheGroupSpec state_group() {
  return {MambaSpec(kPageSize, {{{2}, DType("float32")}}, std::nullopt, MambaCacheMode::kAlign),
          std::nullopt};
}

TEST_F(OpTraceTest, RandomCallsReplayToTheSameAnswers) {
  const CacheGroupSpec cross{CrossAttentionSpec({2, 1, 1, DType("float32")}), std::nullopt};
  const std::vector<std::vector<CacheGroupSpec>> mixes = {{full_group()},
                                                          {window_group(6)},
                                                          {full_group(), window_group(5)},
                                                          {full_group(), state_group()},
                                                          {full_group(), cross}};
  for (unsigned seed = 0; seed < 20; ++seed) {
    SCOPED_TRACE(seed);
    CacheManagerOptions options;
    options.num_shards = seed % 4 == 1 ? 3 : 1;
    options.use_eagle = seed % 4 == 2;
    options.as_easydel = seed % 8 == 4;
    options.enable_caching = seed != 3;
    options.deduplicate = seed % 3 == 0;
    options.prefer_contiguous = !options.as_easydel && seed % 5 < 2;
    if (!options.as_easydel && seed % 7 < 3) options.free_order = FreeOrder::kUncachedFirst;
    options.hasher = PageHasher(HashAlgorithm::kXxh3Cbor, "seed");
    if (seed % 2 == 0) options.hash_page_size = 2;
    expect_same(record(seed, 600, 24, mixes[seed % mixes.size()], options));
  }
}

TEST_F(OpTraceTest, ARestoredManagerReplays) {
  CacheManager before(16, std::vector{full_group()}, 48);
  Request first("first", tokens_of(20));
  ASSERT_TRUE(before.allocate(first, 20));
  before.commit(first, 20);
  Request second("second", tokens_of(20));
  CacheManager after(16, std::vector{full_group()}, 48);
  OpRecorder recorder(after, path_);
  after.restore(before.snapshot());
  EXPECT_EQ(after.match(second), 16);
  ASSERT_TRUE(after.allocate(second, 4, 16));
  after.free(second);
  recorder.stop();
  expect_same(4);
}

TEST_F(OpTraceTest, AnotherRequestAtTheSameAddressIsAnotherRequest) {
  CacheManager manager(16, std::vector{full_group()}, 48);
  OpRecorder recorder(manager, path_);
  std::optional<Request> request;
  for (int i = 0; i < 3000; ++i) {  // more than are kept notes of
    request.emplace("r" + std::to_string(i), tokens_of(8, i / 2));
    manager.match(*request);
    ASSERT_TRUE(manager.allocate(*request, 3));
    manager.commit(*request, 3);
  }
  std::list<Request> many;
  for (int i = 0; i < 3000; ++i) {
    manager.match(many.emplace_back("m" + std::to_string(i), tokens_of(5)));
    if (i % 2 == 0) many.pop_back();
  }
  request.reset();
  recorder.stop();
  expect_same(recorder.num_calls());
}

TEST_F(OpTraceTest, TokensThatWereTakenOffAreWritten) {
  CacheManager manager(16, std::vector{full_group()}, 48);
  OpRecorder recorder(manager, path_);
  Request request("a", tokens_of(9));
  manager.match(request);
  request.truncate(3);
  request.append(tokens_of(10, 500));  // as long as before, and longer
  ASSERT_TRUE(manager.allocate(request, 13));
  manager.commit(request, 12);
  Request same("b", tokens_of(3));
  same.append(tokens_of(10, 500));
  EXPECT_EQ(manager.match(same), 12);
  manager.free(request);
  recorder.stop();
  expect_same(5);
}

TEST_F(OpTraceTest, RequestsThatAnotherManagerHoldsAreRefusedAgain) {
  CacheManager other(16, std::vector{full_group()}, 48);
  CacheManager manager(16, std::vector{full_group()}, 48);
  OpRecorder recorder(manager, path_);
  Request request("a", tokens_of(9));
  ASSERT_TRUE(other.allocate(request, 9));
  EXPECT_THROW(manager.free(request), std::invalid_argument);
  EXPECT_THROW((void)manager.allocate(request, 9), std::invalid_argument);
  EXPECT_EQ(manager.match(request), 0);
  Request parent("parent", tokens_of(9));
  ASSERT_TRUE(manager.allocate(parent, 9));
  manager.commit(parent, 9);
  std::vector<PageCopies> copies;
  EXPECT_THAT([&] { (void)manager.fork(parent, request, copies); },
              ThrowsMessage<std::invalid_argument>(HasSubstr("holds pages already")));
  other.free(request);
  ASSERT_TRUE(manager.fork(parent, request, copies));
  manager.free(request);
  manager.free(parent);
  recorder.stop();
  expect_same(9);
}

TEST_F(OpTraceTest, ADifferenceNamesTheFirstCallThatHasIt) {
  record(5, 300, 24, {full_group()});
  rewrite([](std::size_t i, std::vector<std::byte>& record) {
    if (i != 0) return;
    ByteReader reader("test", std::span(record).subspan(1));
    ManagerConfig config = get_config(reader);
    config.num_pages = 12;
    ByteWriter writer;
    writer.put_uint(static_cast<std::uint64_t>(TraceRecord::kManager));
    put_config(writer, config);
    record.assign(writer.bytes().begin(), writer.bytes().end());
  });
  const ReplayReport report = replay_ops(path_);
  ASSERT_TRUE(report.difference);
  EXPECT_EQ(report.difference->op, 1);  // since every answer has the number of free pages
  EXPECT_EQ(report.num_ops, 1);
  EXPECT_THAT(report.difference->recorded, HasSubstr("pages free"));
  EXPECT_NE(report.difference->recorded, report.difference->replayed);
  EXPECT_THAT(report.difference->call, HasSubstr("request='r"));
}

TEST_F(OpTraceTest, RefusesAFlippedBitInEveryByte) {
  record(7, 7, 8, {full_group()});
  const Bytes whole = read();
  ASSERT_GT(whole.size(), 200);
  for (std::size_t i = 0; i < whole.size(); ++i) {
    Bytes bytes = whole;
    bytes[i] = static_cast<char>(bytes[i] ^ (1 << i % 8));
    write(bytes);
    EXPECT_THROW(replay_ops(path_), std::invalid_argument) << "byte " << i;
  }
}

TEST_F(OpTraceTest, ATraceThatIsCutOffReplaysAsFarAsItGoes) {
  const std::int64_t num_calls = record(7, 7, 8, {full_group()});
  const Bytes whole = read();
  std::int64_t last = 0;
  std::size_t first_good = 0;
  for (std::size_t size = 0; size < whole.size(); ++size) {
    write({whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size)});
    try {
      const ReplayReport report = replay_ops(path_);
      if (first_good == 0) first_good = size;
      EXPECT_FALSE(report.difference);
      EXPECT_FALSE(report.was_stopped);
      EXPECT_GE(report.num_ops, last);
      last = report.num_ops;
    } catch (const std::invalid_argument& error) {
      EXPECT_EQ(first_good, 0) << error.what();  // before there is a manager
    }
  }
  EXPECT_GT(first_good, 12);
  EXPECT_LT(first_good, 200);
  EXPECT_EQ(last, num_calls);
  write({whole.begin(), whole.end() - 1});
  EXPECT_TRUE(replay_ops(path_).is_cut);
}

TEST_F(OpTraceTest, AFlushedTraceHasEachCallBeforeItIsMade) {
  CacheManager manager(16, std::vector{full_group()}, 48);
  OpRecorder recorder(manager, path_, /*flush_each_record=*/true);
  Request request("a", tokens_of(9));
  ASSERT_TRUE(manager.allocate(request, 9));
  const ReplayReport report = replay_ops(path_);
  EXPECT_EQ(report.num_ops, 1);
  EXPECT_FALSE(report.was_stopped || report.is_cut || report.unanswered_call);
  manager.free(request);
  recorder.stop();
  // Without the answer of `free` and the end: as after a crash in it.
  Bytes bytes = read();
  std::uint64_t answer = 0;
  TraceReader reader(path_, "test");
  while (const auto record = reader.next()) {
    if (record->front() == std::byte(TraceRecord::kAnswer)) answer = reader.offset();
  }
  bytes.resize(answer);
  write(bytes);
  EXPECT_EQ(replay_ops(path_).unanswered_call, "free(request='a')");
}

TEST_F(OpTraceTest, RefusesOtherFiles) {
  EXPECT_THROW(replay_ops(path_), std::system_error);
  write({});
  expect_refused("is no op trace");
  write(Bytes(1000, 'x'));
  expect_refused("is no op trace");
  record(1, 5, 8, {full_group()});
  Bytes bytes = read();
  bytes[8] = 9;
  write(bytes);
  expect_refused("is an op trace of version 9, this reads version 1");
}

TEST_F(OpTraceTest, RefusesPoolsThatAreTooLarge) {
  record(1, 5, 9, {full_group()});
  EXPECT_THAT([&] { replay_ops(path_, {.max_pages = 8}); },
              ThrowsMessage<std::invalid_argument>(HasSubstr("9 pages, more than max_pages 8")));
}

// Anybody can make checksums that are right.
TEST_F(OpTraceTest, ForgedRecordsNeverCrash) {
  int num_refused = 0;
  for (unsigned seed = 0; seed < 80; ++seed) {
    SCOPED_TRACE(seed);
    record(seed % 10, 60, 12, {full_group(), window_group(5)});
    Random random(seed);
    rewrite([&](std::size_t i, std::vector<std::byte>& record) {
      if (random.below(10) > 0 || (i == 0 && seed % 3 > 0)) return;
      std::byte& byte = record[static_cast<std::size_t>(random.below(std::ssize(record)))];
      byte = random.below(2) == 0 ? byte ^ std::byte(1 << random.below(8))
                                  : std::byte(random.below(256));
      if (random.below(8) == 0) record.resize(record.size() - 1);
      if (random.below(8) == 0) record.insert(record.end(), 3, std::byte{255});
    });
    try {
      replay_ops(path_, {.check_invariants = true, .max_pages = 1 << 16});
    } catch (const std::invalid_argument& error) {
      EXPECT_THAT(error.what(), HasSubstr("[replay_ops] at byte "));
      ++num_refused;
    }
  }
  EXPECT_GT(num_refused, 8);
}

TEST_F(OpTraceTest, RecordsOnlyManagersThatAreAsNew) {
  const auto start = [&](CacheManager& manager) { OpRecorder(manager, path_); };
  CacheManager manager(16, std::vector{full_group()}, 48);
  start(manager);
  Request request("a", tokens_of(9));
  ASSERT_TRUE(manager.allocate(request, 9));
  const auto expect_used = [&](const char* text) {
    EXPECT_THAT([&] { start(manager); }, ThrowsMessage<std::invalid_argument>(HasSubstr(text)));
  };
  expect_used("1 requests with pages");
  manager.commit(request, 9);
  manager.free(request);
  expect_used("2 cached pages");
  EXPECT_TRUE(manager.reset_prefix_cache());
  expect_used("3 pages allocated so far");  // pages are in another order
  CacheManager fresh(16, std::vector{full_group()}, 48);
  const OpRecorder first(fresh, path_);
  EXPECT_THAT([&] { start(fresh); },
              ThrowsMessage<std::invalid_argument>(HasSubstr("recorded already")));
}

TEST_F(OpTraceTest, FilesThatCannotBeWrittenAreSystemErrors) {
  CacheManager manager(16, std::vector{full_group()}, 48);
  EXPECT_THROW(OpRecorder(manager, "/none/there.trace"), std::system_error);
  EXPECT_FALSE(manager.is_observed());
  if (!std::filesystem::exists("/dev/full")) return;
  OpRecorder recorder(manager, "/dev/full", true);
  Request request("a", tokens_of(9));
  EXPECT_EQ(manager.match(request), 0);
  EXPECT_THROW(recorder.stop(), std::system_error);
  EXPECT_FALSE(manager.is_observed());
}

}  // namespace
}  // namespace pagedkv
