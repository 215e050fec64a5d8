// A fork-join team of threads that share the work on one owner of weights. What they share must not depend on who does
// it: a part writes what no other part reads or writes.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>

namespace adgan {

// One thread leads: it alone calls each(). Others may help(), from when they come until they are dismissed; nothing
// waits for one that is late, or that the system has put aside between two parts.
class Team {
 public:
  explicit Team(int threads = 1) : threads_(threads) {}
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  int threads() const { return threads_; }

  // f(i, thread) for each i < n, in no order; returns when all have returned. f must not throw where others help.
  template <typename F>
  void each(int n, const F& f) const {
    if (threads_ == 1 || n < 2) {
      for (int i = 0; i < n; ++i) f(i, 0);
      return;
    }
    work_.store([](const void* work, int i, int thread) { (*static_cast<const F*>(work))(i, thread); }, kRelaxed);
    context_.store(&f, kRelaxed);
    finished_.store(0, kRelaxed);
    const std::uint64_t round = (ticket_.load(kRelaxed) >> 32) + 1;
    ticket_.store(round << 32 | static_cast<std::uint32_t>(n), std::memory_order_release);
    while (take_part(0)) {
    }
    for (int turns = 0; finished_.load(std::memory_order_acquire) != n;) wait(turns);
  }

  // Takes parts as thread number `thread`, from 1 on, until there will be no more.
  void help(int thread) const {
    for (int turns = 0; !dismissed_.load(std::memory_order_acquire);) {
      if (take_part(thread)) {
        turns = 0;
      } else {
        wait(turns);
      }
    }
  }

  void dismiss() const { dismissed_.store(true, std::memory_order_release); }

 private:
  static constexpr std::memory_order kRelaxed = std::memory_order_relaxed;

  // The ticket is the round in its upper half and the number of parts left in its lower. What belongs to a round is
  // written before its first ticket, and again only when all of its parts are done, so that whoever takes a part has
  // read what belongs to it.
  bool take_part(int thread) const {
    std::uint64_t ticket = ticket_.load(std::memory_order_acquire);
    while (const auto left = static_cast<std::uint32_t>(ticket)) {
      const auto work = work_.load(kRelaxed);
      const void* const context = context_.load(kRelaxed);
      if (!ticket_.compare_exchange_weak(ticket, ticket - 1, std::memory_order_acq_rel, std::memory_order_acquire)) {
        continue;
      }
      work(context, static_cast<int>(left - 1), thread);
      finished_.fetch_add(1, std::memory_order_release);
      return true;
    }
    return false;
  }

  // A spin-then-sleep barrier: some microseconds of spinning; then whoever shares this processor has its turn; in the
  // end a sleep, which costs nobody.
  static void wait(int& turns) {
    constexpr int kAtOnce = 2000, kTurns = 4000;
    if (turns == kTurns) {
      std::this_thread::sleep_for(std::chrono::microseconds(50));
      return;
    }
    if (++turns > kAtOnce) std::this_thread::yield();
  }

  const int threads_;
  mutable std::atomic<void (*)(const void*, int, int)> work_{nullptr};
  mutable std::atomic<const void*> context_{nullptr};
  mutable std::atomic<int> finished_{0};
  mutable std::atomic<std::uint64_t> ticket_{0};
  mutable std::atomic<bool> dismissed_{false};
};

}  // namespace adgan
