// Searches an image of each program (problem.h) with shared weights, on one thread and by a team: the same bits, and
// under the thread sanitizer no race. Prints what differs.
#include <atomic>
#include <cstdio>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "problem.h"

namespace {

constexpr std::int64_t kStarts = adgan::kBatch + 3, kSteps = 2;  // more than pass at a time
constexpr int kThreads = 3;

// To the last bit, of NaN too.
bool same(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

void search(problem::Problem& given, const adgan::Team& team) {
  const adgan::SearchSettings settings{
      adgan::Weights::per_sample, adgan::Loss::laplacian, kSteps, 0.25, 5e-5, 0.5, 0.999, 1e-8, nullptr, nullptr};
  const adgan::Search search(given.plan, settings, given.theta.data(), given.fixed.data(), adgan::kernels());
  adgan::Arena arena(search.arena_floats(kStarts, team.threads()));
  arena.poison();
  search.per_sample(arena, given.pairs, 0, team);
}

}  // namespace

int main() {
  int wrong = 0, programs = 0;
  problem::each_program([&](const std::string& name, const adgan::Program& program) {
    problem::Problem one(program, adgan::Weights::per_sample, kSteps, false, 1, kStarts);
    problem::Problem many(program, adgan::Weights::per_sample, kSteps, false, 1, kStarts);
    search(one, adgan::Team());
    const adgan::Team team(kThreads);
    std::vector<std::thread> helpers;
    std::atomic<int> come{0};
    for (int t = 1; t < kThreads; ++t) {
      helpers.emplace_back([&, t] {
        ++come;
        team.help(t);
      });
    }
    while (come < kThreads - 1) std::this_thread::yield();
    search(many, team);
    team.dismiss();
    for (std::thread& helper : helpers) helper.join();
    if (!same(one.initial, many.initial) || !same(one.final, many.final) || !same(one.latents, many.latents) ||
        !same(one.reconstructions, many.reconstructions)) {
      std::printf("%s: a team found something else\n", name.c_str());
      wrong = 1;
    }
    ++programs;
  });
  std::printf("%d programs\n", programs);
  return wrong;
}
