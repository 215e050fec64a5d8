// Rounds of parts shared by a team: each part is done once, by a thread of the team, and has all its leader wrote
// before. Prints what went wrong; the number of rounds if nothing did.
#include <atomic>
#include <cstdio>
#include <thread>
#include <vector>

#include "core/team.h"

int main() {
  constexpr int kThreads = 4, kRounds = 20000, kMostParts = 9, kHelp = 1000;
  const adgan::Team team(kThreads);
  std::vector<std::thread> helpers;
  for (int t = 1; t < kThreads; ++t) helpers.emplace_back([&team, t] { team.help(t); });
  int done[kMostParts], by[kMostParts];  // plain memory: the team must order what is read and written
  int helped = 0;
  int round = 0;
  while (round < kRounds || helped < kHelp) {  // the others may come late
    ++round;
    const int parts = 1 + round * 7 % kMostParts;  // now more, now fewer than in the round before
    for (int& d : done) d = -round;
    team.each(parts, [&](int i, int thread) {
      done[i] += 2 * round + i;
      by[i] = thread;
    });
    for (int i = 0; i < kMostParts; ++i) {
      const int expected = i < parts ? round + i : -round;
      if (done[i] != expected || (i < parts && (by[i] < 0 || by[i] >= kThreads))) {
        std::printf("round %d, part %d of %d: %d instead of %d\n", round, i, parts, done[i], expected);
        return 1;
      }
      helped += i < parts && by[i] > 0;
    }
  }
  team.dismiss();
  for (std::thread& helper : helpers) helper.join();

  const adgan::Team nobody_came(2);
  int alone = 0;
  nobody_came.each(5, [&](int, int thread) { alone += thread == 0; });
  nobody_came.dismiss();
  nobody_came.help(1);
  if (alone != 5) {
    std::printf("alone %d of 5\n", alone);
    return 1;
  }
  std::printf("%d\n", round);
  return 0;
}
